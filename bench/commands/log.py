"""``log``: how a run went or is going: epochs, losses, speed, and its text log."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.commands.flags import add_out_flag
from bench.commands.top import eta
from bench.errors import printable, remedy
from bench.launch.slurm.tracking import job_output
from bench.report.words import duration, number
from bench.store.folder import RunFolder
from bench.store.record import load_record, measured
from bench.store.states import RUNNING
from bench.store.store import Store

TAIL = 20
"""Lines shown of a job's own errors, where the run wrote nothing."""

LINES = 12
"""Epochs shown of each stage, the first and last among them."""


def show_log(args: argparse.Namespace) -> int:
    """Prints a run's state, the losses of each stage by epoch, and its log.

    Raises:
        UsageError: if no run, or more than one, begins like this.
    """
    folder = Store(Path(args.out)).find(args.run)
    status = folder.status()
    print(f"{folder.run_id}: {status['state']} {status.get('message', '')}".rstrip())
    if status.get("failure"):
        print(f"{status['failure']}: {remedy(status['failure'])}")
    for line in filter(None, (_speed(folder, status), _losses(folder.metrics()))):
        print(f"\n{line}")
    if folder.log.exists() and folder.log.stat().st_size:
        print()
        _print_text(folder.log, 0)
        return 0
    for path in job_output(folder):
        print(f"\n{path}:")
        _print_text(path, TAIL)
    return 0


def _print_text(path: Path, last: int) -> None:
    """Prints the lines of a file (all, or the last ones), nothing that steers a terminal."""
    for text in path.read_bytes().decode(errors="replace").splitlines()[-last:]:
        print(printable(text))


def _speed(folder: RunFolder, status: dict[str, Any]) -> str:
    """Images/s, time and peak memory of a finished run; step and time left of a running one."""
    record = load_record(folder)
    result = record or measured(folder)
    rate = result.images_per_s or status.get("images_per_s")
    parts = [f"{rate:,.0f} images/s"] if rate else []
    if status["state"] == RUNNING and status.get("total"):
        parts.append(f"step {status.get('step', 0)} of {status['total']}")
        parts += [f"ETA {left}"] if (left := eta(status)) else []
    parts += [f"pre-training {duration(result.pretrain_s)}"] if result.pretrain_s else []
    taken = record.seconds if record is not None else {}
    parts += [f"{name} {duration(s)}" for name, s in taken.items()]
    return ", ".join(parts)


def _losses(lines: Sequence[dict[str, Any]]) -> str:
    """A table of epochs and losses, thinned out."""
    rows = []
    for stage in dict.fromkeys(str(line.get("stage", "")) for line in lines):
        mine = [x for x in lines if x.get("stage") == stage and x.get("loss") is not None]
        rows += [[stage, str(x.get("epoch", "")), number(x["loss"], 4)] for x in _thinned(mine)]
    return tabulate(rows, ["stage", "epoch", "loss"], disable_numparse=True) if rows else ""


def _thinned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(lines) <= LINES:
        return lines
    chosen = {round(i * (len(lines) - 1) / (LINES - 1)) for i in range(LINES)}
    return [lines[i] for i in sorted(chosen)]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``log`` takes."""
    add_out_flag(parser)
    parser.add_argument("run", help="run id, or the beginning of one")
