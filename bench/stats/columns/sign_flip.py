"""The sign-flip permutation test of the difference at the reference budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.stats.analysis import Analysis
from bench.stats.means import sign_flip_p
from bench.stats.saving import Curve


def sign_flip(base: Curve, variant: Curve, reference: int, analysis: Analysis) -> Mapping[str, Any]:
    """``p_sign_flip``; nothing if the variant has not run the reference budget."""
    start = base.scores[:, base.epochs == reference][:, 0]
    equal = variant.scores[:, variant.epochs == reference]
    return {"p_sign_flip": sign_flip_p(equal[:, 0] - start)} if equal.size else {}
