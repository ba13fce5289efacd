"""What is submitted, and what a job's state means for its run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import CODE, NODE, OOM, TIMEOUT, killed_by
from bench.launch.slurm.scheduler import WAITING, WORKING, JobState
from bench.plan.study import PRETRAIN, Task
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED

UNWELL = {FAILED, BLOCKED}

SIGNALLED = 128
"""A shell's exit code for a command that a signal killed, less the signal's number."""

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


def shares(found: Sequence[Array], most: int) -> list[tuple[int, int]]:
    """For each submission how many of its tasks may run at once, and which it comes after (or -1).

    Together never more than ``most`` run. Pre-trainings take three times as long as cells here;
    where there are more submissions than ``most``, each runs one task and waits for an earlier one.
    """
    given = [1] * len(found)
    wish = [len(a.tasks) * (3 if a.tasks[0].stage == PRETRAIN else 1) for a in found]
    for _ in range(most - len(found)):
        short = [i for i, a in enumerate(found) if given[i] < len(a.tasks)]
        if not short:
            break
        given[max(short, key=lambda i: wish[i] / (given[i] + 1))] += 1
    return [(share, i - most if i >= most else -1) for i, share in enumerate(given)]


ADVICE: tuple[tuple[str, str], ...] = (
    ("launch failed requeued held", "its node could not start it: 'scontrol release {job}', or "
     "'cancel' and the same command"),
    ("JobHeldUser", "you hold it: 'scontrol release {job}'"),
    ("JobHeldAdmin", "an administrator holds it: ask, or 'cancel'"),
    ("JobHold", "it is held: 'scontrol release {job}'"),
    ("held state", "it is held: 'scontrol release {job}'"),
    ("PartitionDown", "the partition is down: wait for it, or 'cancel' and another --partition"),
    ("PartitionInactive", "the partition takes no jobs: 'cancel' and another --partition"),
    ("PartitionNodeLimit", "the partition has not as many nodes: fewer --nodes"),
    ("PartitionTimeLimit", "the partition allows less time: a lower --timeout"),
    ("BadConstraints", "no node is as asked for: other nodes, GPUs, memory or constraint"),
    ("AccountNotAllowed", "the partition refuses the account: another --account"),
    ("QOSNotAllowed", "the partition refuses the QOS: another --qos"),
    ("InvalidAccount", "the account is not valid: another --account"),
    ("InvalidQOS", "the QOS is not valid: another --qos"),
    ("PerJob", "one job may not ask for as much: a lower --nodes, --ngpus or --timeout"),
    ("PerUserLimit", "the QOS gives you no more at once: ask for less, if nothing of yours runs"),
    ("PerAccountLimit", "the account has no more at once: ask for less, if nothing of it runs"),
    ("ReqNodeNotAvail", "the nodes asked for are down or reserved: see 'sinfo -R'"),
)  # fmt: skip
"""Words in the scheduler's reasons that do not pass by themselves, and what does it."""


def advice(reason: str, job: str) -> str:
    """What to do about a job that waits for this reason; empty if it will start by itself."""
    found = (todo for word, todo in ADVICE if word.lower() in reason.lower())
    return next(found, "").format(job=job)


@dataclass(frozen=True)
class Told:
    """What a run's folder tells: its state, the state it last wrote itself, its exit code."""

    state: str
    word: str
    code: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a run; ``failure`` and ``message`` are to be recorded when given."""

    state: str
    failure: str = ""
    message: str = ""


def judge(job: JobState | None, told: Told, parent: str, lost: bool, once: bool = False) -> Verdict:
    """The state of a run from its job, what its folder tells, and its parent's state.

    ``job`` is None if the scheduler does not list it; ``lost`` says that it has been so, or has
    ended without a result, for long; ``once`` that nobody will look again.
    """
    if told.state == DONE:
        return Verdict(DONE)
    stuck = job is not None and "NeverSatisfied" in job.reason
    if job is not None and job.state in WAITING and not stuck:
        return Verdict(PENDING)
    if job is not None and job.state in WORKING:
        return Verdict(RUNNING)
    if told.state == FAILED:
        return Verdict(FAILED)
    if parent == STOPPED:
        return Verdict(STOPPED, message="cancelled with its pre-training")
    if parent in UNWELL or stuck:
        return Verdict(BLOCKED)
    if job is None:
        return _unlisted(told, lost)
    if job.state == "CANCELLED" and (parent == DONE or lost or once):
        return Verdict(STOPPED, message="its job was cancelled")
    if job.state == "CANCELLED":
        return Verdict(PENDING)  # with its pre-training, of which more is to be heard
    if told.word == STOPPED:
        return Verdict(STOPPED)
    if not lost and (job.state == "COMPLETED" or (job.state == "FAILED" and not once)):
        return Verdict(RUNNING)  # a shared folder may show what the run wrote a little later
    if job.state == "FAILED" and told.word == RUNNING:
        return Verdict(FAILED, NODE, _death(told.code))
    failure, message = FATES.get(job.state, (NODE, f"its job ended as {job.state}"))
    return Verdict(FAILED, failure, message)


def _unlisted(told: Told, lost: bool) -> Verdict:
    """A job that the scheduler does not list."""
    if told.state == RUNNING or not lost:
        return Verdict(RUNNING if told.state == RUNNING else PENDING)
    if told.word == STOPPED:
        return Verdict(STOPPED)
    return Verdict(FAILED, NODE, "its job left the queue without a result")


def _death(code: int | None) -> str:
    """How a run ended that wrote nothing, from the exit code of its job."""
    if code is not None and code > SIGNALLED:
        return killed_by(code - SIGNALLED)
    return (
        "killed without a word (often: out of memory)"
        if code is None
        else (f"ended without a word (exit code {code}); see its log")
    )
