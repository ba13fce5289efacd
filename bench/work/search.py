"""The search behind ``tune``: which settings are tried next, and which end early. By Optuna.

A search keeps nothing of its own: its sampler is seeded and told scores in the order it asked, so
the same search over the same runs asks for the same settings again. That is how it is resumed.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bench.errors import UsageError, unknown
from bench.plan.keys import takes_fractions

optuna.logging.set_verbosity(optuna.logging.WARNING)

GRID, RANDOM, TPE = "grid", "random", "tpe"

AT_ONCE = 4
"""Trials that TPE is asked for together; fixed, so that a search is the same on every machine."""

TRIALS = 20
"""Trials of a search that has no grid to go through."""

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class Axis:
    """A setting and what it may be: ``values`` as typed, or numbers from ``low`` to ``high``."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial) -> str:
        """What the trial should try, as typed; four digits of a number."""
        if self.values:
            return str(trial.suggest_categorical(self.key, self.values))
        if self.whole:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(self.key, self.low, self.high, log=self.log):.4g}"


def parse_axis(text: str) -> Axis:
    """``SECTION.KEY=V1,V2``, or a range ``SECTION.KEY=LOW..HIGH``, with ``:log`` on a log scale.

    Raises:
        UsageError: if it names no values, or a range that is none.
    """
    key, equals, typed = text.partition("=")
    values = tuple(dict.fromkeys(v for v in re.split(r",(?![^\[]*\])", typed) if v))
    if not equals or not values:
        raise UsageError(f"cannot read grid axis '{text}'. Write pretrain.blr=1e-3,2e-3.")
    found = re.fullmatch(rf"({NUMBER})\.\.({NUMBER})(:log)?", typed)
    if not found:
        return Axis(key, values)
    low, high, log = float(found[1]), float(found[2]), bool(found[3])
    if not low < high or (log and low <= 0):
        raise UsageError(
            f"range '{text}' is empty or not above 0. Write pretrain.blr=1e-4..1e-2:log."
        )
    whole = all(re.fullmatch(r"[+-]?\d+", end) for end in (found[1], found[2]))
    return Axis(key, (), low, high, log, whole and not takes_fractions(key))


@dataclass(frozen=True)
class Asked:
    """A trial of a search and its settings as typed."""

    trial: optuna.Trial
    settings: tuple[str, ...]

    @property
    def label(self) -> str:
        """The settings in one line."""
        return " ".join(self.settings)


class Search:
    """The trials of one arm. Asked for some, told their scores, until there are no more."""

    def __init__(self, axes: Sequence[Axis], how: str, trials: int, seed: int = 0) -> None:
        self.axes = axes
        ranges = [axis.key for axis in axes if not axis.values]
        how = how or (TPE if ranges else GRID)
        if how not in SAMPLERS:
            raise unknown("search", how, SAMPLERS)
        if how == GRID and ranges:
            raise UsageError(
                f"'{ranges[0]}' is a range, and a grid needs values: list some, or --search random."
            )
        self.points = math.prod(len(axis.values) for axis in axes) if how == GRID else 0
        self.total = min(trials or self.points, self.points) if how == GRID else trials or TRIALS
        self.width = AT_ONCE if how == TPE else self.total
        sampler = SAMPLERS[how](axes, seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler, pruner=_Halving())
        self.asked = 0

    def ask(self) -> list[Asked]:
        """The next trials, in the order of the values as typed; none when all have been asked."""
        count = min(self.width, self.total - self.asked)
        self.asked += count
        trials = [self.study.ask() for _ in range(count)]
        found = [Asked(t, tuple(f"{a.key}={a.suggest(t)}" for a in self.axes)) for t in trials]
        return sorted(found, key=self._place)

    def _place(self, asked: Asked) -> list[int]:
        """Where a point stands in the grid; a range has no order but that of asking."""
        chosen = [text.partition("=")[2] for text in asked.settings]
        pairs = zip(self.axes, chosen, strict=True)
        places = [axis.values.index(value) if axis.values else 0 for axis, value in pairs]
        return places if self.points else [asked.trial.number]

    def tell(
        self, scored: Sequence[tuple[Asked, float | None]], step: int, last: bool
    ) -> list[Asked]:
        """Takes the scores after a budget, None where a run failed; the trials that go on.

        After the last budget none does; before it the half below the median of that budget ends.
        """
        good = [(asked, score) for asked, score in scored if score is not None]
        for asked, score in scored:
            if score is None:
                self.study.tell(asked.trial, state=TrialState.FAIL)
            else:
                asked.trial.report(score, step)
        if last:
            for asked, score in good:
                self.study.tell(asked.trial, score)
            return []
        keep = [asked for asked, _ in good if not asked.trial.should_prune()]
        for asked, _ in good:
            if asked not in keep:
                self.study.tell(asked.trial, state=TrialState.PRUNED)
        return keep


class _Halving(optuna.pruners.BasePruner):  # type: ignore[misc]
    """Ends what lies below the median of all trials at the same step, itself among them."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends."""
        step = trial.last_step
        if step is None:
            return False
        seen = [t.intermediate_values[step] for t in study.trials if step in t.intermediate_values]
        return trial.intermediate_values[step] < statistics.median(seen)


class _Grid(optuna.samplers.GridSampler):  # type: ignore[misc]
    """Each point once. There is no loop of Optuna's to be stopped at the last one."""

    def after_trial(self, *of_no_interest: Any) -> None:
        """Nothing: :class:`Search` counts."""


SAMPLERS = {
    GRID: lambda axes, seed: _Grid({axis.key: axis.values for axis in axes}, seed=seed),
    RANDOM: lambda axes, seed: optuna.samplers.RandomSampler(seed=seed),
    TPE: lambda axes, seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
}
"""Ways to search, by name."""
