"""Where the runs of a study will be, as far as vetting them asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """``here`` on this machine, else on nodes of ``memory_gb`` a process (0: unknown).

    A batch is shared by ``processes``, which have GPUs each or not.
    """

    here: bool = True
    memory_gb: float = 0.0
    processes: int = 1
    gpus: bool = False
