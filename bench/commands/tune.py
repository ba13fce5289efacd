"""``tune``: a recorded search, so that every arm's tuning effort can be read afterwards.

Each trial is an ordinary run with its own id; seeds start at 1000 by default, so that no report
uses a tuning seed. The table of all trials, good and bad, is saved as CSV. Every arm is searched
by itself, in the same way; the same command goes on where a search was stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from bench import library
from bench.commands.flags import add_all, means_of, wish_of
from bench.commands.study import compute
from bench.errors import NothingMeasuredError, UsageError
from bench.library import Request
from bench.plan import typed
from bench.plan.identity import digest
from bench.plan.keys import check_typed
from bench.plan.study import Study, Task, make_study
from bench.plan.typed import Arm
from bench.plan.wish import idle_settings
from bench.registry import endpoint
from bench.report import words
from bench.stats.analysis import endpoint_label, endpoints_of
from bench.stats.means import Array, estimate
from bench.store.files import write_bytes
from bench.work.flags import natural

if TYPE_CHECKING:  # the search imports Optuna
    from bench.work.search import Asked, Search

TUNING_SEED = 1000

OF_TABLES = ("gates", "allow_pilot", "strict", "json", "name", "calibrate")
"""Flags that every command of a study has and that say nothing here: refused, not in the help."""


@dataclass(frozen=True)
class Trial:
    """One arm's settings as typed, and their cells."""

    settings: str
    study: Study


def tune(args: argparse.Namespace) -> int:
    """Searches, prints the means of all trials and saves them."""
    from bench.work.search import Search, parse_axis

    _refuse_flags_of_tables(args)
    wish = wish_of(args)
    wish = replace(wish, seeds=wish.seeds or f"{TUNING_SEED}-{TUNING_SEED + 1}")
    request = library.outline(wish, args.out, means_of(args))
    for note in request.planned.idle:
        print(f"warning: {note}", file=sys.stderr)
    budgets = sorted({c.config.pretrain.epochs for c in request.study.cells})
    if args.prune and len(budgets) < 2:
        raise UsageError("--prune ends trials after a shorter budget: --epochs 50,200 --prune.")
    axes = [parse_axis(text) for text in args.grid]
    for axis in axes:
        if sum(other.key == axis.key for other in axes) > 1:
            raise UsageError(f"--grid {axis.key} is there twice; write {axis.key}=V1,V2 once.")
        if said := idle_settings(typed.parse_overrides([f"{axis.key}=V"]), request.planned.arms):
            raise UsageError(f"--grid {said[0]}. Add that arm to --methods, or leave the axis.")
    seed = request.planned.resolver.suite_seed
    arms = [(a, Search(axes, args.search, args.trials, seed)) for a in request.planned.arms]
    if args.dry_run:
        return _count(request, arms, budgets)
    stages = [[budget] for budget in budgets] if args.prune else [budgets]
    trials, ids = _searched(request, arms, stages)
    rows = [row for trial in trials for row in _rows(request, trial)]
    if not rows:
        raise NothingMeasuredError("no trial has finished, so there is no table.")
    table = pd.DataFrame(rows).drop_duplicates("run_id")
    print(ranking(table))
    grid = arms[0][1].points and not args.prune
    name = sorted(ids) if grid else [*request.study.ids, *args.grid, args.search, args.prune]
    path = Path(args.out) / "tuning" / f"{request.study.preset}-{digest(*name)[:6]}.csv"
    write_bytes(path, table.to_csv(index=False).encode())
    print(f"saved: {path}", file=sys.stderr)
    return int(bool(ids - set(table["run_id"])))


def _refuse_flags_of_tables(args: argparse.Namespace) -> None:
    for name in OF_TABLES:
        if getattr(args, name):
            flag = "assert" if name == "gates" else name.replace("_", "-")
            raise UsageError(f"--{flag} is about a study's tables, and tune makes none. Leave it.")


def _count(request: Request, arms: Sequence[tuple[Arm, Search]], budgets: Sequence[int]) -> int:
    """Says how many runs there would be, the first trials looked at as they would be."""
    first = [_trial(request, a, asked, budgets) for a, search in arms for asked in search.ask()]
    for note in library.vet(request, _tasks(first)):
        print(f"warning: {note}", file=sys.stderr)
    total = sum(search.total for _, search in arms)
    if all(search.points for _, search in arms):
        print(f"{arms[0][1].total} settings, {len(_tasks(first))} runs")
    else:
        each = 2 * len(request.study.cells) // len(arms)
        print(f"{arms[0][1].total} settings an arm, at most {total * each} runs")
    return 0


def _searched(
    request: Request, arms: Sequence[tuple[Arm, Search]], stages: Sequence[list[int]]
) -> tuple[list[Trial], set[str]]:
    """Rounds of trials, all arms side by side, each stage's budgets for those that go on.

    Returns:
        All trials with all their cells, and the ids of the cells that were to be computed.
    """
    done: list[Trial] = []
    ids: set[str] = set()
    whole = [budget for stage in stages for budget in stage]
    while live := [(a, search, asked) for a, search in arms for asked in search.ask()]:
        asked_for = [_trial(request, a, asked, whole) for a, _, asked in live]
        done += asked_for
        tasks = _tasks(asked_for)
        notes = library.vet(request, tasks)
        request.store.check_writable()
        for note in [*notes, *library.mend_runs(request, tasks)]:
            print(f"warning: {note}", file=sys.stderr)
        for step, budgets in enumerate(stages):
            trials = [_trial(request, a, asked, budgets) for a, _, asked in live]
            compute(request, _tasks(trials))
            ids |= {run_id for trial in trials for run_id in trial.study.ids}
            scores = [_score(request, trial) for trial in trials]
            kept: list[Asked] = []
            for _, search in arms:
                mine = [
                    (asked, score)
                    for (_, of, asked), score in zip(live, scores, strict=True)
                    if of is search
                ]
                kept += search.tell(mine, step, last=step == len(stages) - 1)
            live = [one for one in live if one[2] in kept]
    return done, ids


def _tasks(trials: Sequence[Trial]) -> list[Task]:
    """Every run once, pre-trainings first."""
    tasks = {t.run_id: t for trial in trials for t in trial.study.tasks()}
    return sorted(tasks.values(), key=lambda t: t.stage != "pretrain")


def _score(request: Request, trial: Trial) -> float | None:
    """The mean of the primary endpoint, None if a run of the trial has none."""
    name = _endpoints(request)[0]
    found = [r.scores.get(name, math.nan) for r in request.store.records(trial.study.ids)]
    good = len(found) == len(trial.study.ids) and all(map(math.isfinite, found))
    return sum(found) / len(found) if good else None


def _trial(request: Request, arm: Arm, asked: Asked, budgets: Sequence[int]) -> Trial:
    planned = request.planned
    layer = typed.parse_overrides(asked.settings)
    check_typed(layer)
    resolver = replace(planned.resolver, layers=(*planned.resolver.layers, layer))
    seeds = sorted({c.config.seed for c in request.study.cells})
    cells = make_study(resolver, [arm], budgets, seeds)
    return Trial(asked.label, replace(request.study, cells=cells))


def ranking(table: pd.DataFrame) -> str:
    """The trials of each arm and budget, best mean first, and which the seeds tell from the best.

    The best of several means is lucky: it says where to look, not how good the setting is.
    """
    scores = endpoints_of(table)
    score = next((s for s in scores if table[s].notna().any()), scores[0])
    parts = [
        f"{arm}, {epochs} epochs\n{_ranked(group, score)}"
        for (arm, epochs), group in table.groupby(["arm", "epochs"], sort=False)
    ]
    note = (
        f"* best mean {endpoint_label(score)}, and the luckiest; adjusted for the number of trials."
        "\nScores are of the test images: report on other seeds, or search on a part of the "
        "training images (data.holdout)."
    )
    return "\n\n".join([*parts, note])


def _ranked(group: pd.DataFrame, score: str) -> str:
    endpoints = endpoints_of(group)
    scores = group.pivot_table(index="seed", columns="settings", values=score)
    order = scores.mean().sort_values(ascending=False).index
    alpha = 0.05 / max(1, len(order) - 1)
    rows = []
    for name in order:
        mine = group[group["settings"] == name]
        shown = [words.mean_sd(mine[s].mean(), mine[s].std()) for s in endpoints]
        gap = (scores[name] - scores[order[0]]).dropna().to_numpy()
        said = _against(gap, alpha) if name != order[0] else ""
        rows.append([name + (" *" if name == order[0] else ""), *shown, str(len(mine)), said])
    heads = ["settings", *(endpoint_label(s) for s in endpoints), "n", "against the best"]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


def _against(gap: Array, alpha: float) -> str:
    """Difference to the best, seed by seed, and whether these seeds tell them apart."""
    found = estimate(gap, alpha)
    told = found.high < 0
    gain = words.gain({"difference": found.mean, "low": found.low, "high": found.high})
    return f"{gain}, {'told apart' if told else 'not told apart'}"


def _endpoints(request: Request) -> list[str]:
    return [endpoint(name) for name in request.planned.resolver.tasks()]


def _rows(request: Request, trial: Trial) -> list[dict[str, object]]:
    return [
        {
            "arm": record.arm,
            "epochs": record.epochs,
            "seed": record.seed,
            "settings": trial.settings,
            **{name: record.scores.get(name) for name in _endpoints(request)},
            "pretrain_loss": record.pretrain_loss,
            "run_id": record.run_id,
        }
        for record in request.store.records(trial.study.ids)
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``tune`` takes."""
    add_all(parser)
    for action in parser._actions:
        if action.dest in OF_TABLES:
            action.help = argparse.SUPPRESS
    group = parser.add_argument_group("search")
    group.add_argument(
        "--grid",
        action="append",
        required=True,
        metavar="KEY=V1,V2",
        help="one axis: values as pretrain.lr=1e-3,2e-3, or a range LOW..HIGH, LOW..HIGH:log",
    )
    group.add_argument(
        "--search", default="", metavar="HOW", help="grid, random or tpe (tpe where a range is)"
    )
    group.add_argument(
        "--trials", type=natural, default=0, metavar="N", help="settings tried (the grid, or 20)"
    )
    group.add_argument(
        "--prune", action="store_true", help="the better half of each budget goes on to the next"
    )
