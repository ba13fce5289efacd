"""Numbers and verdicts in words. Pure, and the only place that decides how they are worded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.stats.analysis import ENDPOINTS, PER_EPOCH, Analysis
from bench.stats.means import MIN_SEEDS, smallest_sign_flip_p

NONE = "—"
RECONSTRUCTION = (
    "MTO here is a reconstruction from summaries of the paper (arXiv 2404.08330); its equations "
    "were not available."
)
MATCHED = "matched ✓"
TIMES = ("pretrain_s", "device_hours")
RATIO = ("rho", "rho_low", "rho_high", "bound")
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


def counts(frame: pd.DataFrame) -> str:
    """``5/5``, or the range of finished over all seeds: ``4/5 to 5/5``."""
    found = sorted({f"{ok}/{n}" for ok, n in zip(frame["n_ok"], frame["n"], strict=True)})
    return " to ".join(dict.fromkeys([*found[:1], *found[-1:]]))


def percent(share: Any) -> str:
    """A share as per cent, or a dash."""
    return NONE if is_missing(share) else f"{share:.1%}"


def gain(row: Row) -> str:
    """A paired difference with its interval."""
    spread = interval(row["low"], row["high"], sign=True)
    return f"{number(row['difference'], sign=True)} {spread}".strip()


def ratio_of(row: Row, cost: str) -> str:
    """What the target costs: baseline → method."""
    return f"{significant(row[f'{cost}_base'])} → {significant(row[f'{cost}_variant'])}"


def relative(costs: pd.DataFrame, arm: str, base_arm: str) -> str:
    """Time of an epoch over the baseline's."""
    each = costs[PER_EPOCH["pretrain_s"]]
    if arm not in each or base_arm not in each:
        return NONE
    return f"×{number(each[arm] / each[base_arm])}"


def noninferior(row: Row, margin: float) -> str:
    """Whether equal accuracy at half the epochs is shown, or why it cannot be said."""
    low = row.get("half_low")
    if is_missing(low):
        return f"no cells at {row['target_epochs'] / 2:g} epochs"
    if row["n"] < MIN_SEEDS:
        return f"pilot: no claim ({row['n']} of {MIN_SEEDS} seeds)"
    return "shown" if low is not None and low > -margin else "not shown"


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
    if axis in TIMES and row["mixed_hardware"]:
        return "hardware differs: not comparable"
    end = f"_{axis}" if axis else ""
    ratio, low, high, bound = (row[f"{name}{end}"] for name in RATIO)
    if is_missing(low):
        return "not measured"
    dip = "" if axis or row["monotone"] else ", not monotone"
    return _factor(state, (ratio, low, high), bound) + dip


def _factor(state: str, estimate: tuple[float, float, float], bound: float) -> str:
    ratio, low, high = estimate
    if state == "missed":
        return "target missed" + (f", at most ×{number(high)}" if math.isfinite(high) else "")
    if state == "beyond":
        certain = _open(low, high)
        return certain if low >= bound else f"more than ×{number(bound)} ({certain})"
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
        return "nothing can be said: no seed has the baseline at this budget and the variant"
    if n < MIN_SEEDS:
        return f"pilot: no claim ({n} of {MIN_SEEDS} seeds)"
    if state == "flat":
        return "curve flat: not defined"
    if row["rho_low"] > 1 or row["rho_high"] < 1:
        if is_missing(row["p_holm"]):
            return "not tested: no cells at the target's epochs"
        if row["p_holm"] > analysis.alpha:
            return f"not significant over {row['comparisons']:.0f} comparisons (Holm)"
        return "saves epochs" + _time_verdict(row) if row["rho_low"] > 1 else "needs more epochs"
    return "target missed" if state == "missed" else "no saving shown"


def _time_verdict(row: Row) -> str:
    low, high = row["rho_low_pretrain_s"], row["rho_high_pretrain_s"]
    if row["mixed_hardware"]:
        return "; time not comparable"
    if is_missing(low):
        return "; time not measured"
    if low > 1:
        return " and time"
    return ", but costs time" if high < 1 else "; no saving of time shown"


def seeds(row: Row) -> str:
    """Pairs of seeds used of those run, and how many of the variant's have a failed run."""
    failed = f", {row['failed_seeds']:.0f} failed" if row["failed_seeds"] else ""
    return f"{row['n']}/{row['seeds']:.0f}{failed}"


def sentence(row: Row) -> str:
    """One line on one comparison: how many epochs are saved, or why nothing can be said."""
    goal = f"{row['arm']}, {ENDPOINTS[row['endpoint']]} of {row['base_arm']}"
    goal += f" at {row['target_epochs']} epoch{'s' if row['target_epochs'] != 1 else ''}"
    if row["state"] == "empty":
        return f"{goal}: {row['verdict']}."
    goal += f" ({number(row['target_top1'])} %)"
    if row["state"] == "flat":
        return f"{goal}: {row['verdict']}."
    return (
        f"{goal}: {_reached(row)}ρ on epochs {factor(row)}, on wall time "
        f"{factor(row, 'pretrain_s')}; n {seeds(row)}; {row['verdict']}{_unmatched(row)}."
    )


def _unmatched(row: Row) -> str:
    matched = row["matched"]
    return "" if is_missing(matched) or matched == MATCHED else f" (arms not matched: {matched})"


def _reached(row: Row) -> str:
    if row["state"] != "measured":
        return ""
    share, epochs = row["saved_share"], abs(row["saved_epochs"])
    word = "saved" if share >= 0 else "more"
    return f"after {row['epochs_variant']:.0f} epochs, {epochs:.0f} ({abs(share):.0%}) {word}; "
