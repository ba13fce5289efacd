"""Hyper-parameters of MAE, each default with its source. Importable without torch.

Source: [mae] facebookresearch/mae efb2a80.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import check_range


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """Masked autoencoder, arXiv 2111.06377 ([mae] models_mae.py)."""

    mask_ratio: float = 0.75  # [mae] main_pretrain.py --mask_ratio
    decoder_width: int = 512  # [mae] models_mae.py:223-244, every encoder size
    decoder_depth: int = 8  # same
    decoder_heads: int = 16  # same
    norm_pix_loss: bool = True  # [mae] PRETRAIN.md --norm_pix_loss

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "mae", ("mask_ratio",), 0, 1, ends=False)
        check_range(self, "mae", ("decoder_width", "decoder_depth", "decoder_heads"), 1)
