"""Talking to SLURM: one call asks for the state of many jobs; every refusal is one clear error."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import SchedulerError

TOOLS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
SQUEUE = ("squeue", "-a", "-h", "-r", "-t", "all")
SACCT = ("sacct", "-X", "-n", "-P")
CALL_S = 120
DEFAULT_MAX_ARRAY = 1001
"""SLURM's own default of MaxArraySize."""

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED"}
WORKING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
ALIVE = WAITING | WORKING


@dataclass(frozen=True)
class JobState:
    """State of one job or array task as the scheduler last told it, and its reason."""

    state: str
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether it still waits or works."""
        return self.state in ALIVE


def call(command: Sequence[str]) -> str:
    """Standard output of a scheduler command.

    Raises:
        SchedulerError: if it fails, does not answer or is not there.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S)
    except FileNotFoundError as error:
        raise SchedulerError(f"no command '{command[0]}' here: is this a SLURM node?") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"'{command[0]}' did not answer within {CALL_S} s") from error
    if done.returncode:
        raise SchedulerError(f"'{command[0]}' refused: {done.stderr.strip() or done.stdout}")
    return done.stdout


def check_tools() -> None:
    """Raises SchedulerError unless SLURM's commands are on PATH."""
    missing = [t for t in TOOLS if shutil.which(t) is None]
    if missing:
        raise SchedulerError(
            f"--launcher slurm needs {', '.join(missing)} on PATH. Run it on a login node, or "
            "use --launcher local."
        )


def max_array_size() -> int:
    """How many tasks one job array may hold here."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]))
    return max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY


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
    """States by single job id, from lines ``id|STATE|reason``; job steps are left out."""
    jobs: dict[str, JobState] = {}
    for line in text.splitlines():
        job_id, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if job_id and state and "." not in job_id:
            word = state.split()[0].rstrip("+")  # "CANCELLED by 1000"
            jobs |= {single: JobState(word, reason) for single in expand(job_id)}
    return jobs


def _bases(job_ids: Iterable[str]) -> str:
    return ",".join(sorted({i.partition("_")[0] for i in job_ids}, key=int))


def _queued(job_ids: set[str]) -> dict[str, JobState]:
    if not job_ids:
        return {}
    try:
        return parse(call([*SQUEUE, "-o", "%i|%T|%r", "-j", _bases(job_ids)]))
    except SchedulerError as error:
        if "Invalid job id" in str(error):
            return {}
        raise


@dataclass
class Scheduler:
    """Asks squeue for job states, and sacct, where there is accounting, for jobs that left it.

    squeue comes first because sacct does not list jobs that still wait for others.
    """

    accounting: bool

    @classmethod
    def found(cls) -> Scheduler:
        """The scheduler of this machine."""
        return cls(has_accounting())

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        """States of the jobs it still knows: one call, a second if some have left the queue."""
        wanted = set(job_ids)
        listed = _queued(wanted)
        gone = wanted - set(listed)
        if gone and self.accounting:
            try:
                told = call([*SACCT, "-o", "JobID,State,Reason", "-j", _bases(gone)])
            except SchedulerError:
                self.accounting = False  # squeue alone will do from now on
            else:
                listed |= {i: job for i, job in parse(told).items() if i in gone}
        return listed

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancels jobs; those that have ended already are left alone."""
        wanted = sorted(set(job_ids))
        if wanted:
            call(["scancel", *wanted])
