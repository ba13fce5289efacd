"""Hyper-parameters of SimMIM, each default with its source. Importable without torch.

Source: [simmim] microsoft/SimMIM d3e29bc.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api.rules import Decay, InitStd, Inside, Ruled, Share, Width


@dataclass(frozen=True, kw_only=True)
class SimMIMConfig(Ruled, section="simmim"):
    """SimMIM with a ViT encoder, arXiv 2111.09886 ([simmim] simmim.py, vit_base pre-train yaml)."""

    mask_ratio: Inside = 0.6  # [simmim] config.py DATA.MASK_RATIO
    mask_patch_size: Width = 32  # pixels; [simmim] config.py DATA.MASK_PATCH_SIZE
    layer_scale: Share = 0.1  # [simmim] config.py:84 VIT.INIT_VALUES
    rel_pos_bias: bool = True  # [simmim] vit_base yaml USE_SHARED_RPB
    final_norm: bool = True  # [simmim] vision_transformer.py:254; disputed, see README
    drop_path: Decay = 0.1  # [simmim] config.py MODEL.DROP_PATH_RATE, also in pre-training
    init_std: InitStd = 0.02  # [simmim] simmim.py:66-67, made for a width of 768

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the small model of the conformance suite."""
        return {"mask_patch_size": 4, "drop_path": 0.2}
