"""What went wrong with a run, as one of the classes with a remedy."""

from __future__ import annotations

from pathlib import Path

import torch

from bench import errors
from bench.errors import DISK_ERRORS, BenchError, MachineError, NonFiniteLossError, RunError


def classify(error: Exception, folder: Path | None = None) -> str:
    """The failure class of an exception, one of :data:`bench.errors.REMEDIES`.

    Trouble with a file in the run's own ``folder`` is the machine's, elsewhere the data's.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        return errors.OOM
    if isinstance(error, NonFiniteLossError):
        return errors.NON_FINITE
    if isinstance(error, MachineError) or getattr(error, "errno", None) in DISK_ERRORS:
        return errors.NODE
    if folder and str(getattr(error, "filename", "")).startswith(str(folder)):
        return errors.NODE
    if isinstance(error, OSError | BenchError) and not isinstance(error, RunError):
        return errors.DATA
    return errors.CODE
