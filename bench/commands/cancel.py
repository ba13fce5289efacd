"""``cancel``: stops runs, here or with the scheduler; their states are kept."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError, unknown
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.tracking import known_jobs, live_jobs
from bench.store.folder import host_key
from bench.store.store import Store


def cancel(args: argparse.Namespace) -> int:
    """Cancels the jobs of runs and stops those that run on this machine."""
    store = Store(Path(args.out))
    run_ids = [f.run_id for f in store.folders() if not f.is_done()]
    for name in args.runs:
        if not any(r.startswith(name) for r in run_ids):
            raise unknown("run", name, run_ids[:8])
    if args.runs:
        run_ids = [r for r in run_ids if any(r.startswith(name) for name in args.runs)]
    scheduler = Scheduler(accounting=shutil.which("sacct") is not None)
    jobs = live_jobs(store, known_jobs(store, run_ids), scheduler)
    scheduler.cancel(jobs.values())
    here = [r for r in run_ids if r not in jobs]
    for run_id in here:
        store.run(run_id).cancel()
    stopped = [r for r in here if _stop_here(store, r)]
    if not jobs and not stopped:
        raise NothingMeasuredError(f"nothing to cancel in '{store.root}'.")
    print(f"cancelled {len(jobs)} job(s), stopped {len(stopped)} local run(s); states are kept")
    return 0


def _stop_here(store: Store, run_id: str) -> bool:
    """Asks the process on this machine that computes the run to save its state and stop."""
    folder = store.run(run_id)
    holder = folder.claim().split()
    if not folder.is_locked() or holder[2:] != [host_key()]:
        return False
    os.kill(int(holder[0]), signal.SIGTERM)
    return True


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``cancel`` takes."""
    add_out_flag(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run ids or beginnings (all)")
