"""Equal accuracy at half the reference budget: non-inferiority within the margin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.stats.analysis import Analysis
from bench.stats.means import lower_limit, one_sided_p, sample_sd
from bench.stats.saving import Curve, against


def half(base: Curve, variant: Curve, reference: int, analysis: Analysis) -> Mapping[str, Any]:
    """``half_difference`` with its sd, one-sided limits and the p of being inferior.

    ``half_base`` is what the baseline itself loses there: at half the budget minus at all of it,
    over the seeds that have both.
    """
    start = base.scores[:, base.epochs == reference][:, 0]
    at = variant.epochs == reference / 2
    if not at.any() or not len(start):
        return {}
    gap = against(variant, at, start, -analysis.margin)
    own = base.scores[:, base.epochs == reference / 2] - start[:, None]
    return {
        "half_difference": float(np.mean(gap)),
        "half_base": float(np.nanmean(own)) if own.size else None,
        "half_sd": sample_sd(gap),
        "half_low": lower_limit(gap, analysis.alpha),
        "half_high": -lower_limit(-gap, analysis.alpha),
        "half_p": one_sided_p(gap, -analysis.margin),
    }
