"""``top``: a live view of all runs, from their files and heartbeats alone."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError
from bench.launch.slurm.tracking import WAITS
from bench.store.folder import RunFolder, now
from bench.store.states import DONE, FAILED, PENDING, RUNNING
from bench.store.store import Store
from bench.work.estimate import format_seconds
from bench.work.flags import positive

STALE_S = 120
"""Seconds without a heartbeat after which a run is shown as silent."""


def top(args: argparse.Namespace) -> int:
    """Redraws the view until Ctrl-C, or prints it once (``--once``, or no terminal).

    Raises:
        NothingMeasuredError: if there are no runs.
    """
    store, console = Store(Path(args.out)), Console()
    if not store.folders():
        raise NothingMeasuredError(f"no runs in '{store.runs}'.")
    if args.once or not console.is_terminal:
        console.print(view(store))
        return 0
    with Live(view(store), console=console, screen=True) as live:
        while True:
            time.sleep(args.interval)
            live.update(view(store))


def view(store: Store) -> Group:
    """A line of counts and a table of what runs now or has failed."""
    states = {f: _state(f) for f in store.folders()}
    counts = {s: list(states.values()).count(s) for s in dict.fromkeys(states.values())}
    line = "  ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    heads = ("state", "stage", "progress", "img/s", "loss", "ETA", "beat")
    table = Table(Column("run", overflow="fold", ratio=1), *heads, box=None, expand=True)
    for folder, state in states.items():
        if state in (RUNNING, FAILED) or _waits(folder, state):
            table.add_row(*map(escape, _row(folder, state)))
    return Group(escape(f"{len(states)} runs: {line}"), table)


def _state(folder: RunFolder) -> str:
    return DONE if folder.is_done() else str(folder.status()["state"])


def _waits(folder: RunFolder, state: str) -> str:
    """Why a run's job cannot start by itself, as the launcher noted it; mostly nothing."""
    said = str(folder.status().get("message", "")) if state == PENDING else ""
    return said if said.startswith(WAITS) else ""


def _row(folder: RunFolder, state: str) -> list[str]:
    status = folder.status()
    step, total, rate = status.get("step", 0), status.get("total", 0), status.get("images_per_s")
    share = f"{step}/{total} {step / total:.0%}" if total else ""
    silent = max(0.0, now() - status.get("beat", now()))
    beat = f"{silent:.0f} s ago" + (" (silent)" if silent > STALE_S and state == RUNNING else "")
    loss = status.get("loss")
    note = status.get("failure", "") if state == FAILED else status.get("stage", "")
    note = _waits(folder, state) or note
    return [
        folder.run_id,
        state,
        note,
        share,
        f"{rate:,.0f}" if rate else "",
        f"{loss:.4f}" if loss is not None else "",
        eta(status) if state == RUNNING else "",
        beat,
    ]


def eta(status: dict[str, Any]) -> str:
    """Time left of the stage, at the average pace since this attempt's first word of it."""
    step, total = status.get("step", 0), status.get("total", 0)
    first, since = status.get("since_step", step), status.get("since", 0.0)
    if step <= first or since < status.get("started", 0):
        return ""
    return format_seconds((total - step) * (now() - since) / (step - first))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``top`` takes."""
    add_out_flag(parser)
    parser.add_argument("-i", "--interval", type=positive, default=2.0, help="seconds")
    parser.add_argument("--once", action="store_true", help="print once and end")
