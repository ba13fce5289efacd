"""The memory that a process of this machine may fill. No torch."""

from __future__ import annotations

import os
from pathlib import Path

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where a container's limit stands, of either version of control groups."""


def physical(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of main memory, or of the container's limit where it is lower."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in LIMITS:
        try:
            there = min(there, int((groups / name).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return there
