"""Faults at a file's last step, ``os.replace``: no room, a kill before or after it, a torn file."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("no room", "killed before", "killed after", "torn")


def turned(number: int) -> tuple[str, ...]:
    """The kinds, each study beginning with another one."""
    first = number % len(KINDS)
    return KINDS[first:] + KINDS[:first]


def was_met(mark: Path) -> bool:
    """Whether the fault that leaves this mark came about; the mark goes."""
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


@dataclass
class Fault:
    """What goes wrong at replacement number ``at`` (from 0) of a process.

    It leaves the file ``met`` then. Without a number it only counts: a byte a replacement in the
    file ``counted``.
    """

    at: int = -1
    kind: str = ""
    counted: Path | None = None
    met: Path | None = None
    count: int = 0
    replace: Callable[..., None] = field(default=os.replace)

    def __call__(self) -> None:
        """Puts itself in the place of ``os.replace`` in this process."""
        os.replace = self._replace  # type: ignore[assignment]

    def _replace(self, source: Any, target: Any, **more: Any) -> None:
        number, self.count = self.count, self.count + 1
        if self.counted is not None:
            with self.counted.open("ab") as file:
                file.write(b".")
        if number != self.at:
            self.replace(source, target, **more)
            return
        if self.met is not None:
            self.met.touch()
        if self.kind == "no room":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        if self.kind == "torn" and "runs" in Path(target).parts:
            os.truncate(source, os.path.getsize(source) // 2)
        if self.kind != "killed before":
            self.replace(source, target, **more)
        os.kill(os.getpid(), signal.SIGKILL)
