"""``cancel``: stops runs, here or with the scheduler; their states are kept."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError, unknown
from bench.launch.base import note
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.submit import cancel_report
from bench.launch.slurm.tracking import adopt, known_jobs
from bench.store import studies
from bench.store.folder import host_key
from bench.store.states import PENDING, STOPPED
from bench.store.store import Store

MOST_LINES = 20
"""Runs named one by one."""


def cancel(args: argparse.Namespace) -> int:
    """Cancels the jobs of runs and stops those that run on this machine; says what it did.

    Raises:
        NothingMeasuredError: if there is nothing to stop.
    """
    store = Store(Path(args.out))
    folders = store.folders()
    run_ids = [f.run_id for f in folders if not f.is_done()]
    for name in args.runs:
        if not any(r.startswith(name) for r in run_ids):
            if any(f.run_id.startswith(name) for f in folders):
                raise NothingMeasuredError(f"'{name}' has finished: there is nothing to stop.")
            raise unknown("run", name, run_ids[:8])
    if args.runs:
        run_ids = [r for r in run_ids if any(r.startswith(name) for name in args.runs)]
    scheduler = Scheduler(accounting=False)
    told = [] if args.runs else _cancel_reports(store)
    jobs = _cancel_jobs(store, run_ids, scheduler)
    told += [f"cancelled job {job}: {run_id}" for run_id, job in jobs.items()]
    here = [r for r in run_ids if r not in jobs]
    for run_id in here:
        store.run(run_id).cancel()
    told += [f"stopped here: {r}" for r in here if _stop_here(store, r)]
    if args.runs:
        told += [f"left out by a command that runs now: {r}" for r in here if _waits(store, r)]
    if scheduler.strange:
        numbers = ", ".join(sorted(scheduler.strange)[:MOST_LINES])
        print(f"left alone, for they are others' jobs now: {numbers}", file=sys.stderr)
    if not told:
        raise NothingMeasuredError(f"nothing to cancel in '{store.root}'.")
    print("\n".join(told[:MOST_LINES]))
    if len(told) > MOST_LINES:
        print(f"... and {len(told) - MOST_LINES} more")
    print("states are kept; the same command goes on from them")
    return 0


def _cancel_jobs(store: Store, run_ids: Sequence[str], scheduler: Scheduler) -> dict[str, str]:
    """Cancels the jobs that the scheduler itself tells to be those noted for the runs."""
    noted = known_jobs(store, run_ids)
    jobs = adopt(store, noted, scheduler) if noted else {}
    states = scheduler.states(jobs.values())
    alive = {r: j.id for r, j in jobs.items() if j.id in states and states[j.id].alive}
    scheduler.cancel(alive.values())
    for run_id in alive:
        if store.run(run_id).word()["state"] == PENDING:
            note(store.run(run_id), STOPPED, message="cancelled before it began")
    return alive


def _cancel_reports(store: Store) -> list[str]:
    """Cancels the jobs that would write the studies' tables in the end."""
    if shutil.which("squeue") is None:
        return []
    found = ((s, cancel_report(s.path, Scheduler(False))) for s in studies.planned(store))
    return [f"cancelled job {job}: report of {study.name}" for study, job in found if job]


def _waits(store: Store, run_id: str) -> bool:
    """Whether a run has not begun, so that the mark just left in it keeps it from beginning."""
    return bool(store.run(run_id).word()["state"] == PENDING)


def _stop_here(store: Store, run_id: str) -> bool:
    """Asks the process on this machine that computes the run to save its state and stop."""
    folder = store.run(run_id)
    holder = folder.claim().split()
    if not folder.is_locked() or holder[2:] != [host_key()] or not holder[0].isdecimal():
        return False
    try:
        os.kill(int(holder[0]), signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return False
    return True


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``cancel`` takes."""
    add_out_flag(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run ids or beginnings (all)")
