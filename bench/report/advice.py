"""The power advisor: from the spread of a pilot, what more seeds would resolve and cost."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bench.errors import NothingMeasuredError
from bench.plan.typed import example_arm
from bench.report import markdown, words
from bench.report.sections import Findings, Section
from bench.report.tables import Table
from bench.stats import power
from bench.stats.analysis import endpoint_label, rows_of
from bench.stats.means import MIN_SEEDS, smallest_sign_flip_p
from bench.stats.noise import NULL
from bench.stats.power import POWER


def text(study: Findings, seeds: list[int]) -> str:
    """Markdown: a table a section and variant.

    Raises:
        NothingMeasuredError: saying what there is too little of.
    """
    lines = []
    for section in study.sections:
        if section.differences.empty:
            continue
        for (arm, endpoint), group in _spread(section).groupby(["arm", "endpoint"]):
            row = rows_of(group)[0]
            table = _table(section, row, seeds)
            lines += [f"### {arm}, {endpoint_label(str(endpoint))}, {section.key[0]}", ""]
            lines += [*markdown.table_lines(table), "", table.note, ""]
    if not lines:
        raise NothingMeasuredError(f"nothing to advise on: {_lacking(study)}.")
    return "\n".join(lines).rstrip() + "\n"


def _lacking(study: Findings) -> str:
    """What a study has too little of: variants, or seeds that both arms of a pair have run."""
    arms = {row["arm"]: row["base_arm"] for s in study.sections for row in s.rows["accuracy"]}
    variants = [arm for arm, base in arms.items() if arm != base]
    if not variants:
        return (
            f"the study has no variant beside {', '.join(sorted(arms))}; the spread that counts "
            f"is that of a difference. Run one, as --methods {example_arm()}"
        )
    if missing := sorted({arms[arm] for arm in variants} - arms.keys()):
        return f"{', '.join(variants)} lacks its baseline {', '.join(missing)}"
    return (
        f"no two seeds of {', '.join(variants)} and of its baseline have finished at the same "
        "epochs. Run more, as --seeds 3"
    )


def _spread(section: Section) -> pd.DataFrame:
    """Pooled sd of the paired differences over budgets, weighted by degrees of freedom."""
    frame = section.differences
    frame = frame[frame["n"] > 1].copy()
    frame["freedom"] = frame["n"] - 1
    frame["square"] = frame["sd"] ** 2 * frame["freedom"]
    key = ["base_arm", "arm", "endpoint"]
    pooled = frame.groupby(key)[["square", "freedom"]].sum().reset_index()
    pooled["sd"] = (pooled["square"] / pooled["freedom"]) ** 0.5
    return _with_floor(pooled)


def _with_floor(pooled: pd.DataFrame) -> pd.DataFrame:
    """Adds ``floor``, the sd of two equal arms where there is a null arm: no sd is below it."""
    key = ["base_arm", "endpoint"]
    null = pooled[pooled["arm"] == pooled["base_arm"] + NULL]
    frame = pooled.merge(null[[*key, "sd"]].rename(columns={"sd": "floor"}), on=key, how="left")
    return frame.assign(sd=frame[["sd", "floor"]].max(axis=1))


def _table(section: Section, row: dict[str, Any], seeds: list[int]) -> Table:
    alpha = section.analysis.alpha
    slope = _slope(section, row)
    hours, most = _hours(section, row), _largest_ratio(section, row)
    rows = []
    for n in seeds:
        gain = power.smallest_effect(n, row["sd"], POWER, alpha)
        least = smallest_sign_flip_p(n)
        flip = f"{least:.3g}" + ("" if least <= alpha else ", cannot be significant")
        shown = [str(n), words.number(gain), _as_ratio(gain, slope, most)]
        rows.append([*shown, flip, words.number(hours * n, 1)])
    columns = ["seeds", "smallest gain found (points)", "as ρ", "smallest sign-flip p"]
    columns += ["device-hours, all budgets of both arms"]
    note = (
        f"A gain found with power {POWER:.0%} by the paired t test, two-sided {alpha:.0%}. The sd "
        f"of a paired difference is {words.number(row['sd'], 3)} points on {row['freedom']:.0f} "
        f"degrees of freedom, itself uncertain by about {1 / math.sqrt(2 * row['freedom']):.0%}"
        f"{_floor(row)}. "
        f"ρ takes the baseline's slope of {words.number(slope)} points a doubling of epochs. "
        f"Below {MIN_SEEDS} seeds nothing is claimed."
    )
    return Table("power", "Power", columns, rows, note)


def _floor(row: dict[str, Any]) -> str:
    """How the sd stands to that of two equal arms; nothing without a null arm."""
    if words.is_missing(row["floor"]) or row["arm"] == row["base_arm"] + NULL:
        return ""
    return f"; two equal arms differ by {words.number(row['floor'], 3)}, below which it is not set"


def _as_ratio(gain: float, slope: float, most: float) -> str:
    """The ratio that a gain stands for on the baseline's slope, if the budgets can show it."""
    if not slope > 0:
        return "not defined"
    ratio = 2 ** min(gain / slope, 64.0)
    return f"×{words.number(ratio)}" if ratio <= most else f"beyond the budgets (×{most:g})"


def _largest_ratio(section: Section, row: dict[str, Any]) -> float:
    """The main target's epochs over the smallest budget: no larger ratio can be measured."""
    arms = section.accuracy[section.accuracy["arm"] == row["base_arm"]]
    budgets = sorted({int(epochs) for epochs in arms["epochs"]})
    return section.analysis.targets(budgets)[0] / budgets[0]


def _slope(section: Section, row: dict[str, Any]) -> float:
    """The baseline's gain in points a doubling, around the main target; NaN with one budget."""
    frame = section.accuracy
    mine = (frame["arm"] == row["base_arm"]) & (frame["endpoint"] == row["endpoint"])
    frame = frame[mine].dropna(subset=["mean"]).sort_values("epochs")
    if len(frame) < 2:
        return math.nan
    target = section.analysis.targets(int(epochs) for epochs in frame["epochs"])[0]
    at = max(1, int((frame["epochs"] <= target).sum()) - 1)
    below, above = frame.iloc[at - 1], frame.iloc[at]
    return float((above["mean"] - below["mean"]) / math.log2(above["epochs"] / below["epochs"]))


def _hours(section: Section, row: dict[str, Any]) -> float:
    """Device-hours of pre-training that one more seed costs."""
    cells = section.cells
    mine = cells[cells["arm"].isin([row["arm"], row["base_arm"]])]
    means = mine.groupby(["arm", "epochs"])["device_hours"].mean()
    return float(means.sum()) if means.notna().all() else math.nan
