"""One run in the processes a scheduler or torchrun starts.

``python -m bench.work.worker OUT RUN_ID``.

The run must be registered: its folder holds the resolved configuration.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import TIMEOUT, BenchError, BusyError, StopRequestedError, UsageError
from bench.plan import resolve
from bench.plan.config import Resources
from bench.plan.study import Task
from bench.store.states import FAILED
from bench.store.store import Store

BUSY_WAIT_S = 2.0
"""Seconds between tries at a run that another process still holds."""

REQUEUE_WAIT_S = 60.0
"""Seconds a requeued job waits for the scheduler to end it."""


def load_task(store: Store, run_id: str) -> Task:
    """The task whose configuration lies in a run's folder.

    Raises:
        UsageError: if there is none.
    """
    values = store.run(run_id).config()
    if values is None:
        raise UsageError(f"no run '{run_id}' in '{store.runs}'. See 'python -m bench.run ls runs'.")
    config = resolve.run_from_plain(values["config"])
    return Task(values["stage"], run_id, config, values.get("parent", ""))


def compute(root: Path, run_id: str, resources: Resources) -> None:
    """Computes one registered run together with the other processes of this job, if any.

    Raises:
        StopRequestedError: if a signal asked to stop; the state is saved.
        Exception: whatever went wrong, after it has been recorded.
    """
    from bench.machine.world import join
    from bench.work.runner import execute, pick_device

    store = Store(root)
    task = load_task(store, run_id)
    world = join(cuda=pick_device(resources.device).type == "cuda")
    try:
        while world.leads and store.run(run_id).is_locked():
            time.sleep(BUSY_WAIT_S)
        execute(store, task, resources, world)
    finally:
        world.leave()


@dataclass(frozen=True)
class SlurmRun:
    """The body of a SLURM job: computes one run, and queues again when its time is over.

    SIGUSR2 comes ahead of the time limit: the state is saved and the job requeued. SIGTERM
    (cancelled or pre-empted) only saves: whether to go on is the scheduler's to say.
    """

    root: Path
    run_id: str
    resources: Resources
    max_requeues: int

    def __call__(self) -> None:
        """Computes the run."""
        try:
            compute(self.root, self.run_id, self.resources)
        except StopRequestedError as stop:
            if stop.signal == "SIGUSR2":
                if os.environ.get("SLURM_PROCID", "0") == "0":
                    self._requeue()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(REQUEUE_WAIT_S)  # one that leaves early takes the others with it
            raise

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """What submitit submits again when SIGUSR2 finds the run outside its loops."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _requeue(self) -> None:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts >= self.max_requeues:
            message = f"time limit reached {restarts + 1} times; the state is saved"
            Store(self.root).run(self.run_id).set_status(FAILED, failure=TIMEOUT, message=message)
            return
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=60)


@dataclass(frozen=True)
class ReportJob:
    """The last job of a study: records what became of each run and writes the tables."""

    root: Path
    study: str

    def __call__(self) -> None:
        """Runs the commands a person would."""
        bench = [sys.executable, "-m", "bench.run"]
        subprocess.run([*bench, "status", "--out", str(self.root)], check=False)
        subprocess.run([*bench, "report", self.study, "--out", str(self.root)], check=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.work.worker", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that holds runs/")
    parser.add_argument("run", help="run id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads a process")
    parser.add_argument("--workers", type=int, default=0, help="data workers a process")
    parser.add_argument("--batch-size", type=int, default=0, help="images at once on a device")
    parser.add_argument("--data-root", default="", help="folder of the data set")
    parser.add_argument("--init-path", default="", help="weights the encoder starts from")
    parser.add_argument("--checkpoint-every", type=float, default=60.0, metavar="SECONDS")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Computes one run; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        resources = Resources(
            device=args.device,
            threads=args.threads,
            workers=args.workers,
            micro_batch=args.batch_size,
            data_root=args.data_root,
            init_path=args.init_path,
            checkpoint_every_s=args.checkpoint_every,
        )
        compute(args.out, args.run, resources)
    except BusyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 75
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
