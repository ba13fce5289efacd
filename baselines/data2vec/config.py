"""Hyper-parameters of data2vec, each default with its source. Importable without torch.

Source: [d2v] facebookresearch/data2vec_vision af9a363 (``beit/``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api.rules import Count, Decay, InitStd, Inside, Layers, Part, Positive, Ruled, Share


@dataclass(frozen=True, kw_only=True)
class Data2VecConfig(Ruled, section="data2vec"):
    """data2vec for images, arXiv 2202.03555 ([d2v] README, run_cyclical.py).

    The teacher's decay is ``ema_decay``, reached from ``ema_decay_start`` linearly over
    ``ema_anneal_share`` of the run; a share of 0 keeps it constant, as the README's commands do.
    These count steps, so a short run's teacher lags more. With ``ema_span`` above 0 the teacher's
    time constant 1 / (1 - decay) is that share of the run instead, reached geometrically from
    ``ema_span_start`` (0: constant), and means the same at every budget.
    """

    mask_ratio: Inside = 120 / 196  # [d2v] --num_mask_patches 120, an upper bound
    min_block: Count = 16  # patches; [d2v] --min_mask_patches_per_block
    min_aspect: Part = 0.3  # [d2v] masking_generator.py
    layer_scale: Share = 1e-4  # [d2v] README --layer_scale_init_value
    rel_pos_bias: bool = True  # [d2v] run_cyclical.py:53-55 --rel_pos_bias
    drop_path: Decay = 0.25  # [d2v] README --drop_path
    attn_drop: Decay = 0.05  # [d2v] README --attn_drop_rate
    target_layers: Layers = 6  # top blocks averaged; [d2v] README --target_layers [6..11]
    beta: Positive = 2.0  # smooth L1; [d2v] README --l1_beta
    ema_decay: Share = 0.9998  # [d2v] README --ema_decay
    ema_decay_start: Share = 0.999  # [d2v] README --ema_decay_init
    ema_anneal_share: Share = 0.0  # [d2v] engine_for_cyclical.py:53-54: never annealed
    ema_span: Share = 0.0  # ours, for short runs: share of the run; 0 is the original's rule
    ema_span_start: Share = 0.0  # ours
    init_std: InitStd = 0.02  # BEiT's, see baselines/init.py; made for a width of 768

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the small model of the conformance suite."""
        return {"min_block": 2, "target_layers": 2, "drop_path": 0.2}
