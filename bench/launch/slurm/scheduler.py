"""Talking to SLURM: one call asks for the state of many jobs; every refusal is one clear error."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.errors import NoSchedulerError, SchedulerError

TOOLS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
SQUEUE = ("squeue", "-a", "-h", "-r", "-t", "all")
SQUEUE_FORMAT = "%i|%T|%r|%j|%Z|%k"
SACCT = ("sacct", "-X", "-n", "-P")
SACCT_FORMAT = "JobID,State,Reason,JobName,WorkDir"
CALL_S = 120
DEFAULT_MAX_ARRAY = 1001
"""SLURM's own default of MaxArraySize."""

MARK = "mto-bench:"
"""Begins the word in a job's comment that says which submission it is of."""

LIMIT = re.compile(r"submit ?(job)?s? ?limit|SubmitJob|MaxJobCount|temporarily unable", re.I)
"""A refusal that ends when some of the jobs that are queued have ended."""

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED"}
WORKING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
ALIVE = WAITING | WORKING


@dataclass(frozen=True)
class Job:
    """A job as it was noted when it was submitted: enough to tell it from another of its number.

    ``id`` is empty while the scheduler has not answered; ``index`` is the place in its array.
    ``token`` stands in its comment, ``place`` is its working folder, ``logs`` where it writes.
    """

    id: str = ""
    token: str = ""
    index: int = -1
    name: str = ""
    place: str = ""
    cluster: str = ""
    logs: str = ""
    submitted: float = 0.0


@dataclass(frozen=True)
class JobState:
    """State of one job or array task as the scheduler last told it, its reason and its marks."""

    state: str
    reason: str = ""
    marks: str = ""

    @property
    def alive(self) -> bool:
        """Whether it still waits or works."""
        return self.state in ALIVE


def call(command: Sequence[str]) -> str:
    """Standard output of a scheduler command.

    Raises:
        NoSchedulerError: if it is not there.
        SchedulerError: if it fails or does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S)
    except FileNotFoundError as error:
        raise NoSchedulerError(f"no command '{command[0]}' here: is this a SLURM node?") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"'{command[0]}' did not answer within {CALL_S} s") from error
    except OSError as error:
        raise SchedulerError(f"'{command[0]}' cannot be run: {error.strerror}") from error
    if done.returncode:
        raise SchedulerError(f"'{command[0]}' refused: {done.stderr.strip() or done.stdout}")
    return done.stdout


def check_tools() -> None:
    """Raises NoSchedulerError unless SLURM's commands are on PATH."""
    missing = [t for t in TOOLS if shutil.which(t) is None]
    if missing:
        raise NoSchedulerError(
            f"--launcher slurm needs {', '.join(missing)} on PATH. Run it on a login node, or "
            "use --launcher local."
        )


@dataclass(frozen=True)
class Cluster:
    """The cluster's name, and how many tasks one job array may hold."""

    name: str
    max_array: int


def this_cluster() -> Cluster:
    """What the controller says of itself."""
    told = call(["scontrol", "show", "config"])
    size = re.search(r"MaxArraySize\s*=\s*(\d+)", told)
    name = re.search(r"ClusterName\s*=\s*(\S+)", told)
    largest = max(1, int(size[1])) if size else DEFAULT_MAX_ARRAY
    return Cluster(name[1] if name else "", largest)


def has_accounting() -> bool:
    """Whether sacct answers."""
    try:
        call([*SACCT, "-o", "JobID,State", "-j", "1"])
    except SchedulerError:
        return False
    return True


def expand(job_id: str) -> list[str]:
    """Single ids of one printed by squeue or sacct: ``7_[1-3,5%2]`` is 7_1, 7_2, 7_3 and 7_5."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?::\d+)?(?:%\d+)?\]", job_id)
    if not found:
        return [job_id]
    single = []
    for part in found[2].split(","):
        low, _, high = part.partition("-")
        single += [f"{found[1]}_{i}" for i in range(int(low), int(high or low) + 1)]
    return single


def parse(text: str) -> dict[str, JobState]:
    """States by single job id, from lines ``id|STATE|reason|marks``; job steps are left out."""
    jobs: dict[str, JobState] = {}
    for line in text.splitlines():
        job_id, state, reason, marks = (*line.strip().split("|", 3), "", "", "")[:4]
        if job_id and state and "." not in job_id:
            word = state.split()[0].rstrip("+")  # "CANCELLED by 1000"
            jobs |= {single: JobState(word, reason, marks) for single in expand(job_id)}
    return jobs


def _bases(job_ids: Iterable[str]) -> str:
    return ",".join(sorted({i.partition("_")[0] for i in job_ids}, key=int))


def _queued(job_ids: Iterable[str]) -> dict[str, JobState]:
    try:
        return parse(call([*SQUEUE, "-o", SQUEUE_FORMAT, "-j", _bases(job_ids)]))
    except SchedulerError as error:
        if "Invalid job id" in str(error):
            return {}
        raise


@dataclass
class Scheduler:
    """Asks squeue for job states, and sacct, where there is accounting, for jobs that left it.

    squeue comes first because sacct does not list jobs that still wait for others. A number is
    taken for the job that was noted only if its marks are the noted ones: a cluster that was set
    up anew, and another one, count from 1 again. ``strange`` are numbers that others have now.
    """

    accounting: bool
    strange: set[str] = field(default_factory=set)

    @classmethod
    def found(cls) -> Scheduler:
        """The scheduler of this machine."""
        return cls(has_accounting())

    def states(self, jobs: Iterable[Job]) -> dict[str, JobState]:
        """States of the jobs it still knows: one call, a second if some have left the queue."""
        wanted = {job.id: job for job in jobs if job.id}
        if not wanted:
            return {}
        listed = {i: state for i, state in _queued(wanted).items() if i in wanted}
        mine = {i: s for i, s in listed.items() if is_mine(s, wanted[i])}
        self.strange |= set(listed) - set(mine)
        gone = set(wanted) - set(listed)
        if gone and self.accounting:
            try:
                told = call([*SACCT, "-o", SACCT_FORMAT, "-j", _bases(gone)])
            except SchedulerError:
                self.accounting = False  # squeue alone will do from now on
            else:
                for job_id in gone & set(found := parse(told)):
                    job = wanted[job_id]
                    if found[job_id].marks == f"{job.name}|{job.place}":
                        mine[job_id] = found[job_id]
                    else:
                        self.strange.add(job_id)
        return mine

    def orphans(self, tokens: Iterable[str]) -> dict[str, str]:
        """Numbers of queued jobs, without array index, by the submission they are of."""
        listed = parse(call([*SQUEUE, "-u", getpass.getuser(), "-o", SQUEUE_FORMAT]))
        alive = {i.partition("_")[0]: s for i, s in listed.items() if s.alive}
        return {t: i for t in tokens for i, state in alive.items() if is_of(state, t)}

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancels jobs; those that have ended already are left alone."""
        wanted = sorted(set(job_ids))
        if wanted:
            call(["scancel", *wanted])


def is_of(state: JobState, token: str) -> bool:
    """Whether a queued job is of the submission with this token."""
    return MARK + token in state.marks.rpartition("|")[2].split()


def is_mine(state: JobState, job: Job) -> bool:
    """Whether a queued job is the one that was noted; name and folder tell where sites rewrite
    comments.
    """
    if MARK in state.marks:
        return is_of(state, job.token)
    return state.marks.startswith(f"{job.name}|{job.place}|")
