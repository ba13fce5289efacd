"""What a running stage tells the outside: heartbeat, log lines, whether it was asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from bench.store import RUNNING, RunFolder

BEAT_S = 0.5
"""Seconds between heartbeats."""


@dataclass
class Monitor:
    """Progress of one run, written to its folder; readers poll the files."""

    folder: RunFolder
    checkpoint_every_s: float = 60.0
    stopping: str = ""
    _last_beat: float = 0.0
    _last_checkpoint: float = field(default_factory=time.monotonic)

    def beat(self, stage: str, step: int, total: int, rate: float | None, loss: float) -> None:
        """Reports progress, at most twice a second; ``rate`` in images/s."""
        now = time.monotonic()
        if now - self._last_beat < BEAT_S and step < total:
            return
        self._last_beat = now
        values = {"step": step, "total": total, "images_per_s": rate, "loss": loss}
        self.folder.set_status(RUNNING, stage=stage, **values)

    def log(self, **values: Any) -> None:
        """Appends one line to the run's metrics."""
        self.folder.append_metrics(values)

    def checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint: at intervals, or when a stop was asked for."""
        now = time.monotonic()
        due = bool(self.stopping) or now - self._last_checkpoint >= self.checkpoint_every_s
        if due:
            self._last_checkpoint = now
        return due

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turns SIGTERM, SIGINT and SIGUSR2 into a request to stop at the next step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self.stopping = signal.Signals(number).name

        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        previous = {s: signal.signal(s, ask) for s in wanted}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
