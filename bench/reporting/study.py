"""A study: all runs of a report, the frames drawn from them, and what to know about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import aggregate
from bench.aggregate import SECTION, Analysis
from bench.errors import NothingMeasuredError
from bench.reporting import checks, words

Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Long frames over all sections; a section is one data set, model and evaluation recipe."""

    analysis: Analysis
    runs: pd.DataFrame
    cells: pd.DataFrame
    scores: pd.DataFrame
    accuracy: pd.DataFrame
    differences: pd.DataFrame
    targets: pd.DataFrame
    costs: pd.DataFrame
    matching: pd.DataFrame
    warnings: list[str]
    deviations: list[str]
    missing: list[str]

    @property
    def sections(self) -> list[Key]:
        """Data set, model and recipe of each section, sorted."""
        return sorted(set(self.runs[SECTION].itertuples(index=False, name=None)))

    @property
    def remarks(self) -> list[tuple[str, list[str]]]:
        """What a reader must know, by head."""
        return [
            ("Warnings", self.warnings),
            ("Deviations from the plan", self.deviations),
            ("Missing cells", self.missing),
        ]

    def part(self, frame: pd.DataFrame, key: Key) -> pd.DataFrame:
        """The rows of one section."""
        if frame.empty:
            return frame
        return frame[(frame[SECTION] == list(key)).all(axis=1)]


def study(rows: Iterable[Mapping[str, Any]], plan: Mapping[str, Any] | None) -> Study:
    """Everything a report says, as frames.

    Raises:
        NothingMeasuredError: if no run has a score.
    """
    analysis = Analysis.of(plan)
    runs = aggregate.tidy(rows, analysis)
    if runs.empty or not runs["ok"].any():
        raise NothingMeasuredError(
            "nothing measured: no finished run to report. "
            "See 'python -m bench.run status' for what is running or failed."
        )
    cells = aggregate.cells(runs)
    scores = aggregate.long(cells)
    costs = aggregate.costs(cells)
    matching = checks.matching(runs)
    targets = aggregate.cost_ratios(aggregate.targets(scores, analysis), costs)
    return Study(
        analysis=analysis,
        runs=runs,
        cells=cells,
        scores=scores,
        accuracy=aggregate.accuracy(scores),
        differences=aggregate.differences(scores, analysis.alpha),
        targets=_judged(targets, matching, runs, analysis),
        costs=costs,
        matching=matching,
        warnings=checks.warnings(runs),
        deviations=checks.deviations(runs, analysis),
        missing=checks.missing(runs, analysis),
    )


def _judged(
    targets: pd.DataFrame, matching: pd.DataFrame, runs: pd.DataFrame, analysis: Analysis
) -> pd.DataFrame:
    """The comparisons with their verdicts, knowing which pairs match and which times compare."""
    if targets.empty:
        return targets
    hardware = runs.groupby(SECTION)["hardware"].nunique().gt(1).rename("mixed_hardware")
    frame = targets.merge(matching, on=[*SECTION, "base_arm", "arm"], how="left")
    frame = frame.merge(hardware.reset_index(), on=SECTION)
    rows = aggregate.records(frame)
    frame["verdict"] = [words.verdict(row, analysis) for row in rows]
    frame["rho_words"] = [words.factor(row) for row in rows]
    return frame
