"""RAUC: ratio of the areas under accuracy against log2 epochs, on the budgets that both have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.stats.analysis import Analysis
from bench.stats.saving import Curve
from bench.stats.saving import rauc as ratio


def rauc(base: Curve, variant: Curve, reference: int, analysis: Analysis) -> Mapping[str, Any]:
    """``rauc`` with its t interval over seeds; nothing below two common budgets."""
    common = np.intersect1d(base.epochs, variant.epochs)
    theirs = base.scores[:, np.isin(base.epochs, common)]
    complete = ~np.isnan(theirs).any(axis=1)
    if len(common) < 2 or not complete.any():
        return {}
    ours = variant.scores[:, np.isin(variant.epochs, common)]
    curves = Curve(common, theirs[complete]), Curve(common, ours[complete])
    mean, low, high = ratio(*curves, analysis.alpha)
    return {"rauc": mean, "rauc_low": low, "rauc_high": high}
