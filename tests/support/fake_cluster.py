"""A scheduler of fake commands: studies on it, and ways to move its jobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DetachedError
from bench.launch.slurm.launcher import SlurmLauncher
from bench.launch.slurm.site import Site
from bench.plan.config import Resources
from bench.plan.study import Task
from bench.store.files import write_bytes, write_json
from bench.store.store import Store
from tests.support.tiny_runs import tasks

FAKE = Path(__file__).parents[1] / "launch" / "slurm" / "fakes" / "fake_slurm.py"
SITE = Site(partition="main", poll_s=0.001, timeout_min=60)

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "srun", "sinfo")


class Fake:
    """The state of the fake scheduler, and ways to move it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"

    def read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def change(self, **values: Any) -> None:
        sys.path.insert(0, str(FAKE.parent))
        try:
            from fake_slurm import BLANK
        finally:
            sys.path.pop(0)
        state = {**BLANK, **self.read(), **values}
        write_bytes(self.path, json.dumps(state).encode(), durable=False)

    def move(self, job: str, state: str, reason: str = "None") -> None:
        jobs = self.read()["jobs"]
        assert job in jobs
        self.change(jobs={**jobs, job: [state, reason]})

    def forget(self, job: str) -> None:
        self.change(jobs={i: s for i, s in self.read()["jobs"].items() if i != job})


def launcher(store: Store, site: Site = SITE, **values: Any) -> SlurmLauncher:
    resources = Resources(device="cpu", threads=1)
    return SlurmLauncher(store, resources, site, store.root / "studies" / "s", **values)


def finish(store: Store, task: Task) -> None:
    write_json(store.run(task.run_id).path / "record.json", {"run_id": task.run_id})


Script = dict[int, Callable[[], None]]


def follow(found: SlurmLauncher, every: list[Task], script: Script) -> dict[str, str]:
    """Launches; before look n the script's entry n happens. Stages and how they ended."""
    looks = iter(range(10_000))

    def observe(runs: Any) -> None:
        number = next(looks)
        assert number < 40, "never ends"
        script.get(number, lambda: None)()

    return {p.task.run_id: p.state for p in found.launch(every, observe)}


def job(store: Store, task: Task) -> str:
    return json.loads((store.run(task.run_id).path / "job.json").read_text())["id"]


PRE, FIN = tasks("mae")
OTHER, OTHER_FIN = tasks("simmim")
ALL = [PRE, OTHER, FIN, OTHER_FIN]


def grid(count: int, cells: int = 1) -> list[Task]:
    pre = [replace(PRE, run_id=f"pre-{i:04}") for i in range(count)]
    fin = [
        replace(FIN, run_id=f"fin-{i:04}-{k}", parent=f"pre-{i:04}")
        for i in range(count)
        for k in range(cells if i % 2 else 1)
    ]
    return [*pre, *fin]


def ending(fake: Fake, store: Store, every: Any) -> Callable[[], None]:
    def end() -> None:
        for task in every:
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    return end


def detached(store: Store, every: Any, **values: Any) -> list[str]:
    """Submits and leaves; what was said."""
    said: list[str] = []
    with pytest.raises(DetachedError):
        launcher(store, detach=True, say=said.append, **values).launch(every, lambda runs: None)
    return said
