"""Numbers in words. Pure, and the only place that decides how they are worded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from bench.stats.analysis import PER_EPOCH, endpoint_label
from bench.stats.means import smallest_sign_flip_p

NONE = "—"
MATCHED = "matched ✓"
FLAT = "curve flat: not defined"
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


def digits_of(margin: float) -> int:
    """Digits that show on which side of a margin a limit lies: one of a point, two of a tenth."""
    return max(1, 1 - math.floor(math.log10(margin))) if margin > 0 else 2


def minus(margin: float) -> str:
    """The limit that a margin sets, as short as it can be; zero has no sign."""
    return f"{-margin or 0:g}"


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
    each = sorted({*zip(frame["n_ok"], frame["n"], strict=True)})
    found = [f"{ok}/{n}" for ok, n in each]
    return " to ".join(dict.fromkeys([*found[:1], *found[-1:]]))


def percent(share: Any) -> str:
    """A share as per cent, or a dash."""
    return NONE if is_missing(share) else f"{share:.1%}"


def gain(row: Row) -> str:
    """A paired difference with its interval."""
    spread = interval(row["low"], row["high"], sign=True)
    return f"{number(row['difference'], sign=True)} {spread}".strip()


def over_images(row: Row) -> str:
    """What the test images leave open of a difference: its interval, and how many images decide."""
    if is_missing(row["images"]):
        return NONE
    return f"{interval(row['image_low'], row['image_high'], sign=True)}, {row['discordant']:.1%}"


def ratio_of(row: Row, cost: str, unit: Callable[[Any], str]) -> str:
    """What the target costs: baseline → method."""
    return f"{unit(row[f'{cost}_base'])} → {unit(row[f'{cost}_variant'])}"


def si(value: Any) -> str:
    """Three significant digits with an SI prefix: ``16.6 G``, or a dash."""
    if is_missing(value):
        return NONE
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def device_time(hours: Any) -> str:
    """Hours of a device in the unit that suits their size."""
    return NONE if is_missing(hours) else duration(hours * 3600)


def relative(costs: pd.DataFrame, arm: str, base_arm: str) -> str:
    """Time of an epoch over the baseline's."""
    each = costs[PER_EPOCH["pretrain_s"]]
    if arm not in each or base_arm not in each:
        return NONE
    return f"×{number(each[arm] / each[base_arm])}"


def duration(seconds: Any) -> str:
    """Seconds in the unit that suits their size."""
    if is_missing(seconds):
        return NONE
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds * 1000:.3g} ms" if 0 < seconds < 1 else f"{seconds:.1f} s"


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
        return FLAT
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
        said = "target missed" if high <= bound else "mean below the target"
        return said + (f", at most ×{number(high)}" if math.isfinite(high) else "")
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


def seeds(row: Row) -> str:
    """Pairs of seeds used of those run, and how many of the variant's have a failed run."""
    failed = f", {row['failed_seeds']:.0f} failed" if row["failed_seeds"] else ""
    return f"{row['n']}/{row['seeds']:.0f}{failed}"


def sentence(row: Row) -> str:
    """One line on one comparison: how many epochs are saved, or why nothing can be said."""
    goal = f"{row['arm']}, {endpoint_label(row['endpoint'])} of {row['base_arm']}"
    goal += f" at {row['target_epochs']} epoch{'s' if row['target_epochs'] != 1 else ''}"
    if row["state"] == "empty":
        return f"{goal}: {row['verdict']}."
    goal += f" ({number(row['target_top1'])} %)"
    if row["state"] == "flat":
        return f"{goal}: {row['verdict']}."
    return (
        f"{goal}: {_reached(row)}ρ on epochs {factor(row)}, on wall time "
        f"{factor(row, 'pretrain_s')}; n {seeds(row)}; {row['verdict']}."
    )


def _reached(row: Row) -> str:
    return f"after {row['epochs_variant']:.0f} epochs, " if row["state"] == "measured" else ""
