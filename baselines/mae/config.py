"""Hyper-parameters of MAE, each default with its source. Importable without torch.

Source: [mae] facebookresearch/mae efb2a80.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api.rules import Inside, Layers, Ruled, Width


@dataclass(frozen=True, kw_only=True)
class MAEConfig(Ruled, section="mae"):
    """Masked autoencoder, arXiv 2111.06377 ([mae] models_mae.py)."""

    mask_ratio: Inside = 0.75  # [mae] main_pretrain.py --mask_ratio
    decoder_width: Width = 512  # [mae] models_mae.py:223-244, every encoder size
    decoder_depth: Layers = 8  # same
    decoder_heads: Layers = 16  # same
    norm_pix_loss: bool = True  # [mae] PRETRAIN.md --norm_pix_loss

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the small model of the conformance suite."""
        return {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
