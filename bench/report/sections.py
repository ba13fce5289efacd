"""A study: all runs of a report, the frames drawn from them, and what to know about them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

import pandas as pd

from bench import registry
from bench.errors import NothingMeasuredError
from bench.plan import fairness
from bench.report import checks, claims, words
from bench.report.images import COLUMNS, KEY, Correct, image_gaps, lost_bits
from bench.rows import ConfiguredRow
from bench.stats import compare, frames
from bench.stats.analysis import SECTION, Analysis, measured_endpoints, rows_of
from bench.stats.noise import floors

Key = tuple[str, str, str]

NONINFERIOR = {claims.SHOWN: True, claims.REFUTED: False, claims.OPEN: False}
"""Whether equal accuracy at half the epochs is shown; nothing where it cannot be measured."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What run folders hold beside records, by the id of a cell."""

    correct: Correct
    settings: checks.Settings


@dataclass(frozen=True, kw_only=True)
class Section:
    """One data set, model and evaluation recipe: what one table may hold."""

    key: Key
    analysis: Analysis
    runs: pd.DataFrame
    cells: pd.DataFrame
    accuracy: pd.DataFrame
    differences: pd.DataFrame
    targets: pd.DataFrame
    costs: pd.DataFrame
    matching: pd.DataFrame

    @cached_property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of ``accuracy``, ``differences``, ``targets`` and ``costs``."""
        names = ("accuracy", "differences", "targets", "costs")
        return {name: rows_of(getattr(self, name)) for name in names}

    @cached_property
    def noise(self) -> pd.DataFrame:
        """What its null arms say, a line a baseline, endpoint and budget."""
        return floors(self.differences, self.accuracy, self.analysis.alpha)

    @property
    def plugins(self) -> list[ConfiguredRow]:
        """What the registry says of the plug-ins in its runs."""
        return registry.told(name for names in self.runs["plugins"] for name in names)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Long frames over all sections, and what a reader must know about them."""

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
    folders: Folders | None = None

    @cached_property
    def sections(self) -> list[Section]:
        """The frames cut by data set, model and recipe, sorted."""
        names = [f.name for f in fields(Section) if f.name not in ("key", "analysis")]
        cut = {name: _by_section(getattr(self, name)) for name in names}
        empty = {name: getattr(self, name).iloc[:0] for name in names}
        return [
            Section(
                key=key,
                analysis=self.analysis,
                **{name: parts.get(key, empty[name]) for name, parts in cut.items()},
            )
            for key in sorted(cut["runs"])
        ]

    @property
    def complete(self) -> bool:
        """Whether every run, or every planned one, has finished."""
        done = set(self.runs.loc[self.runs["status"] == "done", "run_id"])
        planned = self.analysis.planned
        return done == (set(self.analysis.ids) if planned else set(self.runs["run_id"]))

    @property
    def remarks(self) -> list[tuple[str, list[str]]]:
        """What a reader must know, by head."""
        return [
            ("Warnings", self.warnings),
            ("Deviations from the plan", self.deviations),
            ("Missing cells", self.missing),
        ]


def _by_section(frame: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    return {} if frame.empty else {cast(Key, k): part for k, part in frame.groupby(SECTION)}


def find(
    rows: Iterable[Mapping[str, Any]],
    plan: Mapping[str, Any] | None,
    folders: Folders | None = None,
) -> Findings:
    """Everything a report says, as frames.

    Args:
        rows: values of records.
        plan: values of plan.json, or None.
        folders: what run folders hold beside records, where they are at hand.

    Raises:
        NothingMeasuredError: if no run has a score.
    """
    analysis = Analysis.of(plan)
    runs = frames.tidy(rows, analysis)
    if runs.empty or not runs["ok"].any():
        raise NothingMeasuredError(
            "nothing measured: no finished run to report. "
            "See 'python -m bench.run status' for what is running or failed."
        )
    deviations = checks.deviations(runs, analysis)
    analysis = analysis.with_measured(measured_endpoints(runs))
    cells = frames.cells(runs)
    scores = frames.long(cells)
    costs = frames.costs(cells)
    statistics = [registry.STATISTICS.load(name) for name in registry.STATISTICS.ordered()]
    matching = checks.matching(runs)
    targets = compare.cost_ratios(compare.targets(scores, analysis, statistics), costs)
    differences = compare.differences(scores, analysis.alpha)
    correct = folders.correct if folders else None
    gaps = image_gaps(runs, correct, analysis)
    said = [*checks.warnings(runs), *lost_bits(runs, correct)]
    unfair = fairness.unfair(analysis.warnings)
    unlike = checks.unlike(runs, folders.settings) if folders else None
    return Findings(
        analysis=analysis,
        runs=runs,
        cells=cells,
        scores=scores,
        accuracy=frames.accuracy(scores),
        differences=_known(_with_images(differences, gaps), matching, unfair, unlike),
        targets=_judged(_known(targets, matching, unfair, unlike), runs, analysis),
        costs=costs,
        matching=matching,
        warnings=[*_unsaid(analysis.warnings, said), *said],
        deviations=deviations,
        missing=checks.missing(runs, analysis),
        folders=folders,
    )


def _unsaid(planned: Iterable[str], said: Iterable[str]) -> list[str]:
    """The plan's warnings but for those on images that runs noted too, with their data set."""
    return [text for text in planned if not any(one.endswith(f": {text}") for one in said)]


def _with_images(differences: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """The differences with what the test images add to their uncertainty, where it is known."""
    if differences.empty:
        return differences
    if gaps.empty:
        return differences.assign(**dict.fromkeys(COLUMNS, math.nan))
    return differences.merge(gaps, on=KEY, how="left")


def _known(
    frame: pd.DataFrame,
    matching: pd.DataFrame,
    unfair: Mapping[str, str],
    unlike: pd.DataFrame | None,
) -> pd.DataFrame:
    """Comparisons that know whether their pairs match, and why a pair is unfair."""
    if frame.empty:
        return frame
    frame = frame.merge(matching, on=[*SECTION, "base_arm", "arm"], how="left")
    frame = frame.assign(unfair=[unfair.get(arm, "") for arm in frame["arm"]])
    if unlike is None:
        return frame
    frame = frame.merge(unlike, on=[*SECTION, "base_arm", "arm"], how="left")
    why = frame.pop("unlike").fillna("")
    return frame.assign(unfair=why.where(why != "", frame["unfair"]))


def _judged(targets: pd.DataFrame, runs: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """The comparisons with their verdicts, knowing which times compare."""
    if targets.empty:
        return targets
    frame = targets.merge(checks.mixed_hardware(runs), on=[*SECTION, "base_arm", "arm"], how="left")
    frame["mixed_hardware"] = frame["mixed_hardware"].eq(True)
    rows = rows_of(frame)
    tests = frame.groupby("endpoint")["half_p_holm"].transform("count")
    halves = [claims.half(row, analysis, int(n)) for row, n in zip(rows, tests, strict=True)]
    frame["half"] = [found.word for found in halves]
    frame["noninferior"] = [NONINFERIOR.get(found.word) for found in halves]
    frame["half_words"] = [found.text for found in halves]
    frame["half_seeds"] = [found.seeds for found in halves]
    frame["verdict"] = [claims.saving(row, analysis) for row in rows]
    frame["rho_words"] = [words.factor(row) for row in rows]
    return frame
