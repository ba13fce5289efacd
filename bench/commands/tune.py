"""``tune``: a recorded grid search, so that every arm's tuning effort can be read afterwards.

Each trial is an ordinary run with its own id; seeds start at 1000 by default, so that no report
uses a tuning seed. The table of all trials, good and bad, is saved as CSV.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from bench.plan.study import Study, make_study
from bench.registry import endpoint
from bench.report import words
from bench.stats.analysis import endpoint_label, endpoints_of
from bench.stats.means import Array, estimate
from bench.store.files import write_bytes

TUNING_SEED = 1000


@dataclass(frozen=True)
class Trial:
    """One point of the grid: its settings as typed, and its cells."""

    settings: str
    study: Study


def tune(args: argparse.Namespace) -> int:
    """Computes all trials that are missing, prints their means and saves them."""
    if args.gates:
        raise UsageError("--assert is checked on a study's tables, and tune makes none. Leave it.")
    wish = wish_of(args)
    wish = replace(wish, seeds=wish.seeds or f"{TUNING_SEED}-{TUNING_SEED + 1}")
    request = library.outline(wish, args.out, means_of(args))
    trials = [_trial(request, settings) for settings in grid(args.grid)]
    tasks = {t.run_id: t for trial in trials for t in trial.study.tasks()}
    ordered = sorted(tasks.values(), key=lambda t: t.stage != "pretrain")
    for note in library.vet(request, ordered):
        print(f"warning: {note}", file=sys.stderr)
    if args.dry_run:
        print(f"{len(trials)} settings, {len(ordered)} runs")
        return 0
    request.store.check_writable()
    for note in library.mend_runs(request, ordered):
        print(f"warning: {note}", file=sys.stderr)
    compute(request, ordered)
    rows = [row for trial in trials for row in _rows(request, trial)]
    if not rows:
        raise NothingMeasuredError("no trial has finished, so there is no table.")
    table = pd.DataFrame(rows)
    print(ranking(table))
    search = digest(*sorted(r for t in trials for r in t.study.ids))[:6]
    path = Path(args.out) / "tuning" / f"{request.study.preset}-{search}.csv"
    write_bytes(path, table.to_csv(index=False).encode())
    print(f"saved: {path}", file=sys.stderr)
    return int(len(rows) < sum(len(t.study.ids) for t in trials))


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


def grid(axes: Sequence[str]) -> list[list[str]]:
    """All combinations of ``SECTION.KEY=V1,V2,...`` axes, each a list of overrides.

    Raises:
        UsageError: if an axis names no values.
    """
    options = []
    for axis in axes:
        key, equals, values = axis.partition("=")
        listed = [v for v in values.split(",") if v]
        if not equals or not listed:
            raise UsageError(f"cannot read grid axis '{axis}'. Write pretrain.blr=1e-3,2e-3.")
        options.append([f"{key}={value}" for value in listed])
    return [list(point) for point in itertools.product(*options)]


def _trial(request: Request, settings: list[str]) -> Trial:
    planned = request.planned
    layer = typed.parse_overrides(settings)
    check_typed(layer)
    resolver = replace(planned.resolver, layers=(*planned.resolver.layers, layer))
    configs = [c.config for c in request.study.cells]
    cells = make_study(
        resolver,
        planned.arms,
        sorted({c.pretrain.epochs for c in configs}),
        sorted({c.seed for c in configs}),
    )
    return Trial(" ".join(settings), replace(request.study, cells=cells))


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
    parser.add_argument(
        "--grid", action="append", required=True, metavar="KEY=V1,V2", help="one axis of the grid"
    )
