"""Hyper-parameters of BootMAE, each default with its source. Importable without torch.

Source: [bootmae] LightDXY/BootMAE d604b18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bench.api.rules import Count, Decay, Inside, Layers, Natural, Part, Ruled, Share, Width
from bench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BootMAEConfig(Ruled, section="bootmae"):
    """Bootstrapped masked autoencoder, arXiv 2207.07116 ([bootmae] modeling_pretrain_bootmae.py).

    The teacher's decay rises linearly from ``ema_decay_start`` to ``ema_decay`` over ``ema_share``
    of the run, then to ``ema_decay_end`` at ``ema_end_share``. These count steps, so a short run's
    teacher lags more: with ``ema_span`` above 0 its last time constant 1 / (1 - decay) is that
    share of the run instead, and the earlier ones are as much shorter. ``evaluate`` names the
    network that evaluation receives. Both decoders have as many heads as the encoder; the feature
    decoder has its width too.
    """

    mask_ratio: Inside = 0.75  # [bootmae] utils.py mask_to_index: 147 of 196
    block_ratio: Inside = 120 / 196  # [bootmae] --num_mask_patches 120, exactly
    min_block: Count = 16  # patches; [bootmae] masking_generator.py
    max_block: Count = 60  # patches; [bootmae] scripts/pretrain --max_mask_patches_per_block
    min_aspect: Part = 0.3  # [bootmae] masking_generator.py
    roll: Natural = 3  # most block-masked patches that stay visible; [bootmae] utils.py:596-603
    decoder_width: Width = 512  # of the pixel decoder; [bootmae] ViT-B and ViT-L
    decoder_depth: Layers = 2  # of either decoder; same
    norm_pix_loss: bool = True  # [bootmae] run_pretraining.py:436-445, by patch and channel
    weight_mask: bool = True  # [bootmae] scripts/pretrain --weight_mask
    feature_share: Share = 0.25  # of the run, to the feature loss's full weight; [bootmae] :386
    ema_decay_start: Share = 0.999  # [bootmae] utils.py:586-594
    ema_decay: Share = 0.9999  # same
    ema_decay_end: Decay = 0.99999  # same, --model_ema_dynamic; ViT-L: 0.9999
    ema_share: Share = 0.125  # same: epoch 100 of 800
    ema_end_share: Share = 0.5  # same: epoch 400 of 800
    ema_span: Share = 0.0  # ours, for short runs; in the original's 800 epochs it would be 0.4
    evaluate: Literal["student", "teacher"] = "student"  # [bootmae] --model_key model

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        super().__post_init__()
        for low, high in (("min_block", "max_block"), ("ema_share", "ema_end_share")):
            least, most = getattr(self, low), getattr(self, high)
            if least > most:
                raise UsageError(f"bootmae.{high}={most} must be at least bootmae.{low}={least}.")
        if self.decoder_width % 4:
            raise UsageError(
                f"bootmae.decoder_width={self.decoder_width} must be a multiple of 4: its "
                "positions are sines and cosines of rows and columns."
            )

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the small model of the conformance suite."""
        return {"decoder_width": 16}
