"""The main command: plan a study, compute what is missing, print and save its table."""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench import library
from bench.commands.flags import means_of, wish_of
from bench.commands.plan import check_gates
from bench.commands.progress import StudyView
from bench.commands.publish import Saying, publish
from bench.commands.recipe import recipe_lines
from bench.errors import DetachedError, StorageError, UsageError, remedy
from bench.launch.base import Progress, left_over, missing
from bench.library import Request
from bench.plan.fairness import switched_on
from bench.plan.study import Study, Task
from bench.report.terminal import COLUMNS
from bench.store.states import DONE, FAILED, STOPPED


def run_study(args: argparse.Namespace) -> int:
    """Plans, computes what is missing, and prints and saves the table."""
    if args.calibrate:
        raise UsageError("--calibrate times a few steps for a plan: add --dry-run, or leave it.")
    request = library.plan(wish_of(args), args.out, means_of(args))
    check_gates(args.gates, request)
    for note in library.freeze(request, args.command_line):
        print(f"warning: {note}", file=sys.stderr)
    tasks = request.study.tasks()
    found = request.survey()
    if any(p.state != DONE for p in found):
        _announce(request, len(tasks), missing(found))
        try:
            ended = compute(request, tasks)
        except DetachedError as away:
            print(away, file=sys.stderr)
            return away.exit_code
        explain(ended, args.out)
    if request.folder.plan() is None:
        raise StorageError(f"'{request.folder.path}' vanished; the same command starts it anew.")
    saying = Saying(
        json=args.json, strict=args.strict, gates=args.gates, allow_pilot=args.allow_pilot
    )
    return publish(request.store, request.folder, saying)


def compute(request: Request, tasks: Sequence[Task]) -> Sequence[Progress]:
    """Computes what is missing of the tasks, shown as it goes."""
    with StudyView() as view:
        say = lambda text: print(text, file=sys.stderr)  # noqa: E731
        return library.compute_tasks(request, tasks, view, say)


def _announce(request: Request, total: int, lacking: Sequence[Task]) -> None:
    for line in recipe_lines(request, lacking):
        print(line, file=sys.stderr)
    for line in _switched(request.study):
        print(textwrap.fill(line, COLUMNS, subsequent_indent="  "), file=sys.stderr)
    settings = request.folder.path / "resolved.yaml"
    print(f"{len(lacking)} of {total} runs to compute; settings: {settings}", file=sys.stderr)


def _switched(study: Study) -> list[str]:
    """The settings that are on in each variant, arms of equal ones together."""
    arms: dict[str, list[str]] = {}
    for config in {c.config.arm: c.config for c in study.cells}.values():
        if said := switched_on(config):
            arms.setdefault(said, []).append(config.arm)
    return [f"{', '.join(names)}: {said}" for said, names in arms.items()]


def explain(ended: Sequence[Progress], out: str) -> None:
    """Says on stderr what failed or was stopped, and what to do about it."""
    failed = [p for p in ended if p.state == FAILED]
    if stopped := sum(p.state == STOPPED for p in ended):
        print(f"{stopped} stopped; the same command goes on from their states", file=sys.stderr)
    for failure in sorted({p.status.get("failure", "") for p in failed} - {""}):
        print(f"{failure}: {remedy(failure)}", file=sys.stderr)
    if failed:
        print(
            f"{left_over(ended)}: read one with 'python -m bench.run log "
            f"{failed[0].task.run_id} --out {shlex.quote(str(Path(out)))}', then add --retry.",
            file=sys.stderr,
        )
