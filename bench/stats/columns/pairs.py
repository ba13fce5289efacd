"""rho of each seed by itself: what the interval's mean hides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.stats.analysis import Analysis
from bench.stats.saving import Curve, pair_ratios


def pairs(base: Curve, variant: Curve, reference: int, analysis: Analysis) -> Mapping[str, Any]:
    """``rho_pairs``: the ratios in one text, separated by blanks."""
    start = base.scores[:, base.epochs == reference][:, 0]
    ratios = pair_ratios(variant, start, reference)
    return {"rho_pairs": " ".join(f"{ratio:.4g}" for ratio in ratios)}
