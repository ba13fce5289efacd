"""A small job that times a few steps of every arm for a plan: a login node would tell nothing."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.errors import SchedulerError
from bench.launch.slurm.scheduler import Job, Scheduler
from bench.launch.slurm.submit import Submitter
from bench.launch.snapshot import take_snapshot
from bench.plan.config import Resources, RunConfig
from bench.store.files import read_json, write_json
from bench.work.estimate import Speed

LOOK_S, MOST_S, ANSWER_WAIT_S = 2.0, 1800.0, 20.0
"""Seconds between looks, before the command gives up, and for files to appear behind a job."""


@dataclass(frozen=True)
class Timing:
    """Body of the job: one file of a speed for each configuration, as it is measured."""

    folder: Path
    configs: tuple[RunConfig, ...]
    resources: Resources
    processes: int = 1
    """Processes of a real run, one of which is measured."""

    def __call__(self) -> None:
        """Measures one after another; an arm that cannot be timed leaves the others theirs."""
        from bench.work.calibrate import calibrate

        for number, config in enumerate(self.configs):
            try:
                speed = calibrate(config, self.resources, self.processes)
            except Exception:
                traceback.print_exc()
                continue
            write_json(self.folder / f"{number}.json", asdict(speed))


def timed(
    submitter: Submitter, configs: Sequence[RunConfig], say: Callable[[str], None]
) -> list[Speed | None]:
    """Speeds of the configurations on a node, None where the job did not come so far.

    One process measures; a run of several is taken to be as many times as fast.

    Raises:
        SchedulerError: if the scheduler refuses the job.
    """
    root, site = submitter.store.root, submitter.site
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=".timing.")).absolute()
    one = replace(site, nodes=1, tasks_per_node=1, gpus_per_node=min(1, site.gpus_per_node))
    limit, ahead = min(30, site.timeout_min), min(30, site.signal_delay_s)
    one = replace(one, timeout_min=limit, signal_delay_s=ahead, job_dir=str(folder / "job"))
    small = Submitter(submitter.store, submitter.resources, one, folder)
    resources = replace(submitter.resources, nodes=1, gpus_per_node=one.gpus_per_node)
    body = Timing(folder, tuple(configs), resources, site.nodes * site.tasks)
    job = small.submit_one(body, "timing", take_snapshot(root.absolute() / "code"))
    say(f"timing {len(configs)} arm(s) in job {job.id}; given up after {MOST_S / 60:.0f} minutes")
    files = [folder / f"{number}.json" for number in range(len(configs))]
    try:
        _wait(files, job, say)
        found = [read_json(file) for file in files]
    finally:
        with contextlib.suppress(Exception):
            Scheduler(False).cancel([job.id])
        shutil.rmtree(folder, ignore_errors=True)
    return [None if f is None else Speed(**f) for f in found]


def _wait(files: Sequence[Path], job: Job, say: Callable[[str], None]) -> None:
    """Until all files are there, the job has ended, or the time is over; tells of each file."""
    begun, told, gone = time.monotonic(), 0, 0.0
    while time.monotonic() - begun < MOST_S:
        there = sum(file.exists() for file in files)
        if there > told:
            say(f"timed {there} of {len(files)}")
        told = there
        if there == len(files):
            return
        try:
            state = Scheduler(False).states([job]).get(job.id)
        except SchedulerError:
            time.sleep(LOOK_S)
            continue
        gone = 0.0 if state is not None and state.alive else gone or time.monotonic()
        if gone and time.monotonic() - gone > ANSWER_WAIT_S:
            say("the job ended early: the rest is not timed")
            return
        time.sleep(LOOK_S)
