"""Several processes of this machine that compute one run together."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from bench.errors import BusyError, StopRequestedError

GRACE_S = 30.0
"""Seconds the others have to hear of one's death before they are killed: they may wait for it."""

SPOKEN = {0, StopRequestedError.exit_code, BusyError.exit_code}
"""Exit codes of a first process that tell all there is to tell."""


@dataclass
class Gang:
    """The processes of one run, the first of which leads; to its launcher they are one process."""

    processes: Sequence[BaseProcess]
    _since: float = 0.0

    def is_alive(self) -> bool:
        """Whether one lives; once one has ended badly the others do so soon."""
        alive = [p for p in self.processes if p.is_alive()]
        if alive and any(p.exitcode for p in self.processes):
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > GRACE_S:
                for process in alive:
                    process.kill()
        return bool(alive)

    @property
    def exitcode(self) -> int | None:
        """The first process's word, or the signal that another one died by."""
        codes = [p.exitcode for p in self.processes]
        killed = [c for c in codes if c is not None and c < 0]
        return killed[0] if killed and codes[0] not in SPOKEN else codes[0]

    def join(self, timeout: float | None = None) -> None:
        """Waits for each, so long at most."""
        for process in self.processes:
            process.join(timeout)

    def terminate(self) -> None:
        """Asks all to save their state."""
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        """Ends all at once."""
        for process in self.processes:
            process.kill()


@dataclass(frozen=True)
class Seat:
    """One process's number among ``size``, and the port at which they meet."""

    rank: int = 0
    size: int = 1
    port: int = 0

    def take(self) -> None:
        """Says so in the environment, in torchrun's words."""
        os.environ.update(
            RANK=str(self.rank),
            LOCAL_RANK=str(self.rank),
            WORLD_SIZE=str(self.size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(self.port),
        )


def seats(size: int) -> list[Seat]:
    """A seat for each process of a run, which meet at a port that is free now."""
    if size == 1:
        return [Seat()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return [Seat(rank, size, port) for rank in range(size)]
