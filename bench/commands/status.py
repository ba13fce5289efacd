"""``status``: what has become of the studies in a folder, and of the runs of one."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.commands.cluster import Scheduled, ask_scheduler
from bench.commands.flags import add_out_flag
from bench.errors import DamagedError, NothingMeasuredError
from bench.launch.slurm.tracking import WAITS
from bench.report.words import duration
from bench.store import studies
from bench.store.folder import RunFolder, now
from bench.store.record import load_record, measured
from bench.store.states import DONE, FAILED, PENDING, RUNNING
from bench.store.store import Store


def show_status(args: argparse.Namespace) -> int:
    """Prints a line a study, or of one study a line a run.

    Raises:
        NothingMeasuredError: if the folder holds no runs.
    """
    store = Store(Path(args.out))
    if not store.folders():
        raise NothingMeasuredError(f"no runs in '{store.runs}'.")
    asked = ask_scheduler(store)
    print(_runs(store, args.study, asked) if args.study else _studies(store, asked.states))
    return 0


def _studies(store: Store, jobs: dict[str, str]) -> str:
    """Every study with the states of its runs, the time they took, and when one last moved."""
    known: dict[str, list[str]] = {}
    damaged = []
    for folder in sorted(studies.planned(store), key=lambda f: f.name):
        try:
            known[folder.name] = _ids(store, folder.plan() or {})
        except DamagedError as error:
            damaged.append(f"{folder.name}: {error}")
    inside = {name for names in known.values() for name in names}
    loose = [f.run_id for f in store.folders() if f.run_id not in inside]
    if loose:
        known["(in no study)"] = loose
    heads = ["study", "runs", DONE, RUNNING, FAILED, "other", "computed", "last sign"]
    rows = [[name, *_counted(store, ids, jobs)] for name, ids in known.items()]
    table = tabulate(rows, heads, tablefmt="simple", disable_numparse=True)
    more = "One study's runs: status STUDY. A live view: top."
    return "\n".join([table, "", *damaged, more])


def _ids(store: Store, plan: dict[str, Any]) -> list[str]:
    """A study's cells and the pre-trainings they wait for."""
    cells = [str(name) for name in plan.get("ids", [])]
    parents = ((store.run(name).config() or {}).get("parent") for name in cells)
    return list(dict.fromkeys([*(p for p in parents if p), *cells]))


def _counted(store: Store, ids: list[str], jobs: dict[str, str]) -> list[str]:
    folders = [store.run(name) for name in ids]
    states = Counter(state(folder, jobs) for folder in folders)
    named = [states[name] for name in (DONE, RUNNING, FAILED)]
    spent = sum(_seconds(folder) for folder in folders)
    counts = [len(ids), *named, len(ids) - sum(named)]
    return [*map(str, counts), duration(spent) if spent else "", _ago(folders)]


def state(folder: RunFolder, jobs: dict[str, str]) -> str:
    """A run's state, by the scheduler where it knows more."""
    return DONE if folder.is_done() else jobs.get(folder.run_id, str(folder.status()["state"]))


def _seconds(folder: RunFolder) -> float:
    """Time a finished run spent training; of a cell that of its tasks."""
    if not folder.is_done():
        return 0.0
    with contextlib.suppress(DamagedError):
        record = load_record(folder)
        if record is not None:
            return sum(record.seconds.values())
        return measured(folder).pretrain_s or 0.0
    return 0.0


def _ago(folders: list[RunFolder]) -> str:
    beats = [beat for f in folders if (beat := f.status().get("beat"))]
    return f"{duration(max(0.0, now() - max(beats)))} ago" if beats else ""


def _runs(store: Store, study: str, asked: Scheduled) -> str:
    rows = []
    for name in _ids(store, studies.find(store, study).plan() or {}):
        run = store.run(name)
        status, seconds = run.status(), _seconds(run)
        step = f"{status['step']}/{status['total']}" if {"step", "total"} <= status.keys() else ""
        shown = state(run, asked.states)
        stage = status.get("failure", "") if shown == FAILED else status.get("stage", "")
        took = duration(seconds) if seconds else ""
        said = "" if shown == DONE else _said(status, shown, asked.reasons.get(name, ""))
        rows.append([name, shown, stage, step, took, said])
    heads = ["run", "state", "stage", "step", "time", "message"]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


def _said(status: dict[str, Any], shown: str, reason: str) -> str:
    """What a run or its job says, and how often it has begun."""
    said = str(status.get("message", "")) or (f"{WAITS}{reason}" if reason else "")
    again = f"attempt {status['attempt']}" if status.get("attempt", 0) > 1 else ""
    return ", ".join(filter(None, (said, again if shown in (RUNNING, PENDING) else "")))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``status`` takes."""
    add_out_flag(parser)
    parser.add_argument("study", nargs="?", default="", metavar="STUDY", help="its runs")
