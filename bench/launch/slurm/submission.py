"""What is submitted, and what a job's state means for its run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import CODE, NODE, OOM, TIMEOUT
from bench.launch.slurm.scheduler import WAITING, WORKING, JobState
from bench.plan.study import PRETRAIN, Task
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED

UNWELL = {FAILED, BLOCKED, STOPPED}

FATES: dict[str, tuple[str, str]] = {
    "TIMEOUT": (TIMEOUT, "the time limit passed"),
    "DEADLINE": (TIMEOUT, "the deadline passed"),
    "OUT_OF_MEMORY": (OOM, "killed for using more memory than asked for"),
    "NODE_FAIL": (NODE, "the node failed"),
    "BOOT_FAIL": (NODE, "the node did not boot"),
    "LAUNCH_FAILED": (NODE, "the job could not be started"),
    "RECONFIG_FAIL": (NODE, "the node could not be configured"),
    "PREEMPTED": (NODE, "pre-empted and not queued again"),
    "REVOKED": (NODE, "revoked by the scheduler"),
    "FAILED": (CODE, "the job ended before its run began; see its log"),
    "COMPLETED": (NODE, "the job ended without leaving its result"),
}
"""Failure class and wording of states in which a job leaves its run unfinished."""


@dataclass(frozen=True)
class Array:
    """Tasks of one submission.

    Task i waits for task i of submission number ``follows``; or all wait for the job ``waits``.
    """

    tasks: tuple[Task, ...]
    follows: int = -1
    waits: str = ""


def arrays(tasks: Sequence[Task], live: Mapping[str, str], largest: int) -> list[Array]:
    """Submissions for the tasks that are to be computed.

    ``live`` maps runs that were submitted earlier to their jobs; no submission holds more than
    ``largest`` tasks. Cells of one pre-training are spread over several arrays, so that each
    task's index is its pre-training's.
    """
    children: dict[str, list[Task]] = {}
    for task in tasks:
        if task.stage != PRETRAIN:
            children.setdefault(task.parent, []).append(task)
    roots = [t for t in tasks if t.stage == PRETRAIN]
    roots.sort(key=lambda t: -len(children.get(t.run_id, ())))
    found: list[Array] = []
    for chunk in _chunks(roots, largest):
        families = [children.pop(t.run_id, []) for t in chunk]
        number = len(found)
        found.append(Array(tuple(chunk)))
        for layer in range(len(families[0])):
            members = tuple(f[layer] for f in families if len(f) > layer)
            found.append(Array(members, follows=number))
    free = [c for parent, cells in children.items() if parent not in live for c in cells]
    found += [Array(tuple(chunk)) for chunk in _chunks(free, largest)]
    for parent, cells in children.items():
        if parent in live:
            found += [Array(tuple(c), waits=live[parent]) for c in _chunks(cells, largest)]
    return found


def _chunks(tasks: Sequence[Task], largest: int) -> Iterator[Sequence[Task]]:
    for start in range(0, len(tasks), largest):
        yield tasks[start : start + largest]


@dataclass(frozen=True)
class Verdict:
    """What became of a run; ``failure`` and ``message`` are to be recorded when given."""

    state: str
    failure: str = ""
    message: str = ""


def judge(job: JobState | None, recorded: str, parent: str, lost: bool) -> Verdict:
    """The state of a run from its job, what its folder records, and its parent's state.

    ``job`` is None if the scheduler does not list it; ``lost`` says that it has been so for long.
    """
    if recorded == DONE:
        return Verdict(DONE)
    stuck = job is not None and "NeverSatisfied" in job.reason
    if job is not None and job.state in WAITING and not stuck:
        return Verdict(PENDING)
    if job is not None and job.state in WORKING:
        return Verdict(RUNNING)
    if recorded == FAILED:
        return Verdict(FAILED)
    if parent in UNWELL or stuck:
        return Verdict(BLOCKED)
    if job is None and not lost:
        return Verdict(PENDING)
    if job is None:
        return Verdict(FAILED, NODE, "its job left the queue without a result")
    if job.state == "COMPLETED" and not lost:
        return Verdict(RUNNING)  # a shared folder may show the result a little later
    if job.state == "CANCELLED":
        return Verdict(STOPPED, message="its job was cancelled")
    if job.state == "FAILED" and recorded in (RUNNING, STOPPED):
        return Verdict(FAILED, NODE, "killed without a word (often: out of memory)")
    failure, message = FATES.get(job.state, (NODE, f"its job ended as {job.state}"))
    return Verdict(FAILED, failure, message)
