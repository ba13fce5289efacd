"""Where the runs of a study will be, as far as vetting them asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """``here`` on this machine, else on nodes of ``memory_gb`` (0: unknown)."""

    here: bool = True
    memory_gb: float = 0.0
