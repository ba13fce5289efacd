"""What launchers share: the state of each run of a study, and the calls every launcher answers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import registry
from bench.errors import NODE, UsageError
from bench.plan.config import Resources
from bench.plan.study import PRETRAIN, Task
from bench.store.folder import RunFolder
from bench.store.mend import has_weights
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store

CELL_WEIGHT = 20.0
"""Work of an evaluation run, in epochs of pre-training; for progress bars only."""


@dataclass
class Progress:
    """State of one run as its launcher knows it; ``share`` in [0, 1] of its steps."""

    task: Task
    state: str = PENDING
    share: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Work of the run, in epochs of pre-training."""
        return float(
            self.task.config.pretrain.epochs if self.task.stage == PRETRAIN else CELL_WEIGHT
        )


Observer = Callable[[Sequence[Progress]], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a launcher is made from: where the runs lie, and how they are to be computed.

    ``jobs`` runs side by side (0: the launcher's choice). ``threads`` and ``workers`` are those
    asked for, 0 and None if the choice in ``resources`` was made for this machine.
    ``smallest_batch`` is the smallest effective batch of the study, in images; ``site`` a file
    with a cluster's settings and ``settings`` those given by flags. ``say`` takes what the user
    should know while runs wait. ``share`` refuses a number of processes that cannot share the
    study's batches (:func:`bench.plan.cuts.check_runs`).
    """

    store: Store
    resources: Resources
    study: Path
    smallest_batch: int
    jobs: int = 0
    threads: int = 0
    workers: int | None = None
    retry: bool = False
    detach: bool = False
    site: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    share: Callable[[int], None] = lambda processes: None


@dataclass(frozen=True)
class Places:
    """How much is computed at once: runs side by side, and ``units`` of ``unit`` a run.

    ``here`` on this machine, else on nodes of ``memory_gb`` a process (0: unknown); ``processes``
    share a run's batch.
    """

    jobs: int
    units: int
    unit: str
    here: bool = True
    memory_gb: float = 0.0
    processes: int = 1


def check_shares(order: Order, processes: int, flags: str) -> None:
    """Refuses more processes a run than the study's batches can be shared by.

    Raises:
        UsageError: naming the ``flags`` to lower.
    """
    if processes > 1 and order.smallest_batch < 2 * processes:
        raise UsageError(
            f"{processes} processes cannot share a batch of {order.smallest_batch} images: fewer "
            f"{flags}, or a larger pretrain.batch_size."
        )
    order.share(processes)


class Launcher(Protocol):
    """Computes the runs of a study that are not done yet; made from an :class:`Order`.

    One with ``describe(tasks) -> list[str]`` tells a dry run more of what it would do; one with
    ``calibrate(configs)`` times arms where its runs would be.
    """

    def places(self, runs: int) -> Places:
        """How much it would compute at once of so many runs."""
        ...

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Runs the tasks in an order that respects ``parent``; returns how each one ended."""
        ...


def survey(store: Store, tasks: Sequence[Task], retry: bool) -> list[Progress]:
    """The state of each run before a launch; earlier failures count as pending only on retry.

    A pre-training whose weights are lost is pending again where a run needs them.
    """
    found = []
    for task in tasks:
        folder = store.run(task.run_id)
        status = {} if folder.is_done() else folder.status()
        state = status.get("state", DONE)
        if state in (RUNNING, STOPPED, BLOCKED) or (state == FAILED and retry):
            state = PENDING
        found.append(Progress(task, state, status=status if state == FAILED else {}))
    wanted = {p.task.parent for p in found if p.state == PENDING}
    for progress in found:
        run_id = progress.task.run_id
        if progress.state == DONE and run_id in wanted and not has_weights(store.run(run_id)):
            progress.state = PENDING
        progress.share = float(progress.state == DONE)
    return found


def refresh(store: Store, progress: Progress) -> None:
    """Reads a running run's heartbeat."""
    progress.status = store.run(progress.task.run_id).status()
    total = progress.status.get("total") or 0
    done = progress.status.get("step", 0) / total if total else 0.0
    start, width = _part(progress.task, progress.status.get("stage", "").partition(" ")[0])
    progress.share = start + width * done


def _part(task: Task, stage: str) -> tuple[float, float]:
    """Where a stage begins in its run, and its usual share of it."""
    if stage == PRETRAIN:
        return 0.0, 1.0
    shares = {name: registry.TASKS.row(name).share for name, _ in task.config.tasks}
    if stage not in shares:  # it has just begun
        return 0.0, 0.0
    before = itertools.takewhile(lambda name: name != stage, shares)
    total = sum(shares.values()) or 1.0
    return sum(shares[name] for name in before) / total, shares.get(stage, 0.0) / total


def stop_dependents(progresses: Sequence[Progress]) -> None:
    """Runs whose parent was stopped from outside wait for another command."""
    stopped = {p.task.run_id for p in progresses if p.state == STOPPED}
    for progress in progresses:
        if progress.state == PENDING and progress.task.parent in stopped:
            progress.state = STOPPED


def block_dependents(store: Store, progresses: Sequence[Progress]) -> None:
    """Marks runs whose parent failed; they are not started."""
    for progress in dependents(progresses):
        progress.state = BLOCKED
        progress.status = {"message": f"waits for {progress.task.parent}, which failed"}
        note(store.run(progress.task.run_id), BLOCKED, **progress.status)


def dependents(progresses: Sequence[Progress]) -> list[Progress]:
    """Pending runs whose parent failed."""
    failed = {p.task.run_id for p in progresses if p.state == FAILED}
    return [p for p in progresses if p.state == PENDING and p.task.parent in failed]


def missing(progresses: Sequence[Progress]) -> list[Task]:
    """What a launch would start: neither failures nor what hangs on them."""
    blocked = {p.task.run_id for p in dependents(progresses)}
    return [p.task for p in progresses if p.state == PENDING and p.task.run_id not in blocked]


def note(folder: RunFolder, state: str, **values: Any) -> None:
    """A launcher's word on a run; a disk in trouble costs that word alone."""
    with contextlib.suppress(OSError):
        folder.set_status(state, **values)


def failed(folder: RunFolder) -> dict[str, Any]:
    """The status of a run that ended badly, also where it could not write down why."""
    status = folder.status()
    if status["state"] == FAILED:
        return status
    why = "it could not write down why it ended: is the disk full, or may it not be written?"
    if not folder.path.is_dir():
        why = "its folder vanished while it ran"
    told = {"failure": NODE, "message": why}
    note(folder, FAILED, **told)
    return {**status, **told, "state": FAILED}


def left_over(progresses: Sequence[Progress]) -> str:
    """What failed and what waits for it, counted; empty if nothing did."""
    counts = {s: sum(p.state == s for p in progresses) for s in (FAILED, BLOCKED)}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
