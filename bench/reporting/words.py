"""Numbers and verdicts in words. Pure, and the only place that decides how they are worded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.aggregate import ENDPOINTS, Analysis
from bench.metrics import MIN_SEEDS, smallest_sign_flip_p

NONE = "—"
RECONSTRUCTION = (
    "MTO here is a reconstruction from summaries of the paper (arXiv 2404.08330); its equations "
    "were not available."
)
Row = Mapping[str, Any]


def is_missing(value: Any) -> bool:
    """Whether a number is absent."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed digits, or a dash."""
    if is_missing(value):
        return NONE
    return f"{value:{'+' if sign else ''}.{digits}f}"


def significant(value: Any) -> str:
    """Three significant digits, or a dash."""
    return NONE if is_missing(value) else f"{value:.3g}"


def mean_sd(mean: Any, sd: Any) -> str:
    """``mean ± sample sd``; without the sd where there is only one value."""
    return number(mean) if is_missing(sd) else f"{number(mean)} ± {number(sd)}"


def interval(low: Any, high: Any, digits: int = 2, sign: bool = False) -> str:
    """``[low, high]``, or nothing where there is none."""
    if is_missing(low) or is_missing(high) or math.isinf(low) or math.isinf(high):
        return ""
    return f"[{number(low, digits, sign)}, {number(high, digits, sign)}]"


def duration(seconds: Any) -> str:
    """Seconds in the unit that suits their size."""
    if is_missing(seconds):
        return NONE
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def p_value(p: Any) -> str:
    """A p value, never rounded to zero."""
    if is_missing(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def sign_flip(p: Any, n: int, alpha: float) -> str:
    """The sign-flip p, or that n seeds cannot give a significant one."""
    if n < 1 or is_missing(p):
        return NONE
    if smallest_sign_flip_p(n) > alpha:
        return f"cannot be significant with {n} seed{'s' if n != 1 else ''}"
    return p_value(p)


def factor(row: Row, axis: str = "") -> str:
    """Rho with its interval, its censoring in words; ``axis`` is a cost column or empty."""
    state = row["state"]
    if state == "empty":
        return "no pair of seeds"
    if state == "flat":
        return "curve flat: not defined"
    end = f"_{axis}" if axis else ""
    ratio, low, high = (row.get(f"{name}{end}") for name in ("rho", "rho_low", "rho_high"))
    if is_missing(low):
        return "not measured"
    if state == "missed":
        return "target missed" + (f", at most ×{number(high)}" if math.isfinite(high) else "")
    if state == "beyond":
        return f"more than ×{number(row[f'bound{end}'])} ({_open(low, high)})"
    if low > 0 and math.isfinite(high):
        return f"×{number(ratio)} {interval(low, high)}"
    return f"×{number(ratio)} ({_open(low, high)})"


def _open(low: float, high: float) -> str:
    if low > 0:
        return f"at least ×{number(low)}"
    if math.isfinite(high):
        return f"at most ×{number(high)}"
    return "not bounded"


def verdict(row: Row, analysis: Analysis) -> str:
    """What may be claimed from one comparison."""
    state, n = row["state"], row["n"]
    if state == "empty":
        return "nothing can be said: no seed has both arms"
    if n < MIN_SEEDS:
        return f"pilot: no claim ({n} of {MIN_SEEDS} seeds)"
    if state == "flat":
        return "curve flat: not defined"
    if row["rho_low"] > 1:
        if is_missing(row["p_holm"]) or row["p_holm"] > analysis.alpha:
            return f"not significant over {row['comparisons']:.0f} comparisons (Holm)"
        return "saves epochs" + _time_verdict(row)
    if row["rho_high"] < 1:
        return "needs more epochs"
    return "target missed" if state == "missed" else "no saving shown"


def _time_verdict(row: Row) -> str:
    low, high = row.get("rho_low_pretrain_s"), row.get("rho_high_pretrain_s")
    if low is None or high is None or is_missing(low):
        return "; time not measured"
    if low > 1:
        return " and time"
    return ", but costs time" if high < 1 else "; no saving of time shown"


def sentence(row: Row, analysis: Analysis) -> str:
    """One line on one comparison: how many epochs are saved, or why nothing can be said."""
    label = ENDPOINTS[row["endpoint"]]
    goal = f"{label} of {row['base_arm']} at {row['target_epochs']} epochs"
    said = verdict(row, analysis)
    if row["state"] == "empty":
        return f"{row['arm']}, {goal}: {said}."
    goal += f" ({number(row['target_top1'])} %)"
    if row["state"] == "measured":
        share = row["saved_share"]
        word = "saved" if share >= 0 else "more"
        amount = f"{abs(row['saved_epochs']):.0f} epochs ({abs(share):.0%}) {word}, "
        reached = f"reached after {row['epochs_variant']:.0f} epochs: {amount}"
    else:
        reached = ""
    return (
        f"{row['arm']}, {goal}: {reached}epochs {factor(row)}, "
        f"wall time {factor(row, 'pretrain_s')}; {said}."
    )
