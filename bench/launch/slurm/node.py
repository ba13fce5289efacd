"""A small job for ``doctor``: what a compute node sees of this machine's folder."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.launch.slurm.scheduler import Job, Scheduler, call, check_tools
from bench.launch.slurm.site import Site
from bench.launch.slurm.submit import Submitter
from bench.launch.snapshot import take_snapshot
from bench.machine.cores import usable_cores
from bench.plan.config import Resources
from bench.store.files import read_json, write_json
from bench.store.store import Store

LOOK_S, SIGNAL_WAIT_S, ANSWER_WAIT_S = 1.0, 20.0, 20.0


@dataclass(frozen=True)
class NodeCheck:
    """Body of the job: answers in ``folder``."""

    folder: Path

    def __call__(self) -> None:
        """Reads what was written, waits for SIGUSR2, and writes what it saw."""
        from bench.launch.local import visible_gpus
        from bench.machine import provenance

        heard: list[int] = []
        signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
        with contextlib.suppress(OSError):
            (self.folder / "ready").write_text("")
        until = time.monotonic() + SIGNAL_WAIT_S
        while not heard and time.monotonic() < until:
            time.sleep(0.1)
        written = ""
        with contextlib.suppress(OSError):
            written = (self.folder / "question").read_text()
        answer = {
            "read": written,
            "signal": bool(heard),
            "cores": usable_cores(),
            "gpus": len(visible_gpus()),
            "versions": provenance.versions(),
        }
        write_json(self.folder / "answer.json", answer)


def ask_node(out: Path, site: Site) -> dict[str, Any]:
    """What a compute node answers; empty if it does not.

    Raises:
        SchedulerError: if the scheduler refuses the job.
    """
    check_tools()
    folder = Path(tempfile.mkdtemp(dir=out, prefix=".doctor.")).absolute()
    try:
        (folder / "question").write_text("written here")
        small = replace(site, nodes=1, tasks_per_node=1, timeout_min=5, job_dir=str(folder / "job"))
        small = replace(small, signal_delay_s=30)
        submitter = Submitter(Store(out), Resources(), small, folder)
        snapshot = take_snapshot(out.absolute() / "code")
        job = submitter.submit_one(NodeCheck(folder), "doctor", snapshot)
        try:
            return _answer(folder, job)
        finally:
            with contextlib.suppress(Exception):
                Scheduler(False).cancel([job.id])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(folder: Path, job: Job) -> dict[str, Any]:
    asked, ended = False, 0.0
    scheduler = Scheduler(False)
    while not (folder / "answer.json").exists():
        time.sleep(LOOK_S)
        if (folder / "ready").exists() and not asked:
            asked = True
            call(["scancel", "--signal=USR2", job.id])
        state = scheduler.states([job]).get(job.id)
        if state is not None and state.alive:
            continue
        ended = ended or time.monotonic()
        if time.monotonic() - ended > ANSWER_WAIT_S:
            break
    return read_json(folder / "answer.json") or {}
