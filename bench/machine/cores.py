"""The cores that this process may use. No torch."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many there are; all of the machine's where the system binds no process to some."""
    bound = getattr(os, "sched_getaffinity", None)
    return len(bound(0)) if bound is not None else os.cpu_count() or 1
