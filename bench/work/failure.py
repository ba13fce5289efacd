"""What went wrong with a run, as one of the classes with a remedy."""

from __future__ import annotations

import errno

import torch

from bench import errors
from bench.errors import BenchError, MachineError, NonFiniteLossError, RunError

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS}
"""Error numbers of a disk or file system in trouble."""


def classify(error: Exception) -> str:
    """The failure class of an exception, one of :data:`bench.errors.REMEDIES`."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        return errors.OOM
    if isinstance(error, NonFiniteLossError):
        return errors.NON_FINITE
    if isinstance(error, MachineError) or getattr(error, "errno", None) in MACHINE_ERRORS:
        return errors.NODE
    if isinstance(error, OSError | BenchError) and not isinstance(error, RunError):
        return errors.DATA
    return errors.CODE
