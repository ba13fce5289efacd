"""The error tree, and the classes of failure of a run with what to do about each.

Every user-facing error says what is wrong, what is nearest, what is known and what to do next.
"""

from __future__ import annotations

import difflib
import errno
import re
import signal
from collections.abc import Iterable, Sequence

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal, end a line, or stand for bytes that are no text."""


def printable(text: str) -> str:
    """Text from a file or its name as it may be shown: whatever steers a terminal is escaped."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(value: object, most: int = 80) -> str:
    """A value as messages name it: on one line, and not endless."""
    text = printable(str(list(value)) if isinstance(value, tuple) else str(value))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def few(names: Sequence[str], most: int = 4) -> str:
    """The first of these names, and how many more there are."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS})
"""Numbers of errors of a disk or file system in trouble."""


EXIT_CODES = {
    0: "complete",
    1: "some runs failed or were stopped (the table is still written), or a scheduler refused",
    2: "nothing started: the request, a file in the results folder or the disk is at fault",
    3: "nothing measured",
    4: "a gate failed",
    75: "the run is computed by another process (the worker alone)",
    130: "stopped, can be resumed",
}
"""What the exit code of every command means."""


class BenchError(Exception):
    """Base of every error a user may see; ``exit_code`` is what the command returns."""

    exit_code = 1


class UsageError(BenchError):
    """The request itself is wrong; nothing has been started."""

    exit_code = 2


class DataError(UsageError):
    """A data set is missing, unreadable or does not fit the preset."""


class NothingMeasuredError(BenchError):
    """A report was asked for, but no finished run is there to report."""

    exit_code = 3


class GateError(BenchError):
    """An ``--assert`` gate did not hold."""

    exit_code = 4


class StoreError(BenchError):
    """A run folder is unreadable, of an unknown schema or already locked."""

    exit_code = 2


class DamagedError(StoreError):
    """A file in the store is torn, cut or was edited; it was written whole once."""


class BusyError(StoreError):
    """Another process computes the run now."""

    exit_code = 75


class RunError(BenchError):
    """One run failed; the class name of its cause is kept in its status."""


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite; the last good state is kept."""


class MachineError(RunError):
    """The machine failed, not the run: a killed worker, a full memory."""


class StorageError(MachineError):
    """A folder vanished or cannot be written; earlier checkpoints stand."""

    exit_code = 2


class LostProcessError(MachineError):
    """Another of the processes that compute a run together died or cannot be reached."""


class SchedulerError(BenchError):
    """The scheduler refused a request or does not answer."""


class NoSchedulerError(SchedulerError):
    """The scheduler's commands are not there: nothing that waits will bring an answer."""


class StopRequestedError(BenchError):
    """A signal asked the run to stop; its state has been saved and can be resumed."""

    exit_code = 130


class RequeueError(StopRequestedError):
    """The run's time limit is near (SIGUSR2): its state has been saved, and it is to go on."""


class DetachedError(BenchError):
    """The command has left its jobs to the scheduler; the same command comes back to them."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """A :class:`UsageError` for a name that is not in a table, with the nearest one that is."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name.lower()[:200], names, n=1, cutoff=0.5)
    parts = [f"unknown {kind} '{shown(name)}'."]
    if nearest:
        parts.append(f"Did you mean '{nearest[0]}'?")
    parts.append(f"Known: {', '.join(names) or 'none'}.")
    if hint:
        parts.append(hint)
    return UsageError(" ".join(parts))


OOM, NON_FINITE, TIMEOUT, NODE, CODE, DATA = (
    "oom",
    "non-finite",
    "time-out",
    "node",
    "code",
    "data",
)


def killed_by(number: int) -> str:
    """What is said of a process that a signal killed."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"killed by {name}" + " (often: out of memory)" * (number == signal.SIGKILL)


REMEDIES: dict[str, str] = {
    OOM: "out of memory: hold fewer images at once (--batch-size N; the effective batch stays, and "
    "but for attention dropout the numbers), or ask for more memory; then --retry",
    NON_FINITE: "the loss diverged: lower pretrain.blr, set pretrain.clip_grad, or bf16 instead of "
    "fp16; the cell counts as not reaching the target",
    TIMEOUT: "the time limit passed: raise --timeout; --retry goes on from the last checkpoint",
    NODE: "the machine failed, not the run: check disk space and node; --retry goes on from the "
    "last checkpoint",
    CODE: "an error in the program: read 'log RUN'; --retry once it is mended",
    DATA: "the data could not be read: check --data and its folder ('doctor'); then --retry",
}
"""One line of advice for each class."""


def remedy(failure: str) -> str:
    """The advice for a failure class; empty for an unknown one."""
    return REMEDIES.get(failure, "")
