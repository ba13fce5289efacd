"""Bodies of SLURM jobs: a run, and the report behind the last one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import TIMEOUT, LostProcessError, RequeueError
from bench.launch.slurm.stage import staged
from bench.plan.config import Resources
from bench.store.states import FAILED
from bench.store.store import Store
from bench.train.monitor import Early
from bench.work.worker import compute

REQUEUE_WAIT_S = 60.0
"""Seconds a requeued job waits for the scheduler to end it."""

REQUEUE_TRIES, REQUEUE_AGAIN_S = 60, 5.0
"""How often a controller that is away is asked again to requeue, and the seconds in between."""

KILLED = 137
"""Exit code on which the job's script queues it again, as after SIGKILL."""


@dataclass(frozen=True)
class SlurmRun:
    """The body of a SLURM job: computes one run, and queues again when its time is over.

    SIGUSR2 comes ahead of the time limit: the state is saved and the job requeued. SIGTERM
    (cancelled or pre-empted) only saves: whether to go on is the scheduler's to say. The death of
    another process of the run counts as if this one had been killed. ``stage`` and ``stage_from``
    are those of the site.
    """

    root: Path
    run_id: str
    resources: Resources
    max_requeues: int
    stage: str = ""
    stage_from: str = ""

    def __call__(self) -> None:
        """Computes the run."""
        leads = os.environ.get("SLURM_PROCID", "0") == "0"
        signal.signal(signal.SIGUSR2, Early())
        try:
            compute(self.root, self.run_id, self._placed())
        except LostProcessError:
            # srun ends the others by SIGTERM, which would hide the death in its exit code
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if leads:
                sys.exit(KILLED)
            raise
        except RequeueError:
            if leads:
                self._requeue()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(REQUEUE_WAIT_S)  # one that leaves early takes the others with it
            raise

    def _placed(self) -> Resources:
        """The resources, with the images on this node's disk where the site wants them there."""
        root = self.resources.data_root
        if not self.stage or not root:
            return self.resources
        place = staged(Path(self.stage_from or root), self.stage)
        return replace(self.resources, data_root=str(place))

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
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        for _ in range(REQUEUE_TRIES):
            try:
                subprocess.run(command, check=True, timeout=60)
                return
            except (OSError, subprocess.SubprocessError) as error:
                print(f"not queued again yet: {error}", file=sys.stderr)
                time.sleep(REQUEUE_AGAIN_S)


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
