"""What a running stage tells the outside: heartbeat, log lines, whether it was asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from bench.errors import StorageError
from bench.store.folder import RunFolder
from bench.store.states import RUNNING
from bench.train.trackers import Trackers

log = logging.getLogger(__name__)

BEAT_S = 1.0
"""Seconds between heartbeats."""

GO_ON, SAVE, STOP, REQUEUE = 0, 1, 2, 3
"""What is due after a step, in rising urgency; the processes of a run agree on the highest."""


class Early:
    """A handler that remembers a signal from before a run can heed it; it then stops at once."""

    def __init__(self) -> None:
        self.heard = ""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remembers the signal, however often it comes."""
        self.heard = signal.Signals(number).name


@dataclass
class Monitor:
    """Progress of one run, written to its folder; readers poll the files.

    A ``silent`` monitor belongs to a process that does not lead its run: it writes nothing.
    ``claim`` is what the run's lock file holds as long as the run is this process's; ``trackers``
    receive what is logged.
    """

    folder: RunFolder
    checkpoint_every_s: float = 60.0
    silent: bool = False
    claim: str = ""
    stopping: str = ""
    trackers: Trackers | None = None
    _at: tuple[str, int] = ("", 0)
    _since: tuple[int, float] = (0, 0.0)
    _last_beat: float = 0.0
    _last_checkpoint: float = field(default_factory=time.monotonic)

    def beat(
        self,
        stage: str,
        step: int,
        total: int,
        rate: float | None,
        loss: float,
        waited: float | None = None,
    ) -> None:
        """Reports progress, at most once a second.

        ``rate`` is in images/s, ``waited`` the share of the time spent waiting for data. The status
        also says since when, and since which step, this attempt has reported the stage.

        A heartbeat that cannot be written costs nothing but a warning.

        Raises:
            StorageError: if the run's folder is gone.
        """
        now = time.monotonic()
        if self.silent or (now - self._last_beat < BEAT_S and step < total):
            return
        self._last_beat = now
        self.check()
        if stage != self._at[0] or step < self._at[1]:
            self._since = step, time.time()
        self._at = stage, step
        values = {"step": step, "total": total, "images_per_s": rate, "loss": loss}
        values["data_wait_share"] = waited
        begun = {"since_step": self._since[0], "since": self._since[1]}
        try:
            self.folder.set_status(RUNNING, stage=stage, **begun, **values)
        except OSError as error:
            log.warning("no heartbeat: %s", error)

    def check(self) -> None:
        """Raises StorageError if the run's folder is gone or no longer this process's."""
        if self.claim and self.folder.claim() != self.claim:
            raise StorageError(f"the folder of {self.folder.run_id} vanished during the run")

    def log(self, **values: Any) -> None:
        """Appends one line to the run's metrics."""
        if not self.silent:
            self.check()
            self.folder.append_metrics(values)
            if self.trackers is not None:
                self.trackers.log(values)

    def urgency(self) -> int:
        """What is due now: a checkpoint at intervals, or a stop when one was asked for."""
        now = time.monotonic()
        if self.stopping:
            return REQUEUE if self.stopping == "SIGUSR2" else STOP
        if self.silent or now - self._last_checkpoint < self.checkpoint_every_s:
            return GO_ON
        self._last_checkpoint = now
        return SAVE

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turns SIGTERM, SIGINT and SIGUSR2 into a request to stop at the next step.

        A second SIGINT stops at once; the last checkpoint stands. What an :class:`Early` handler
        has heard counts.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.stopping == "SIGINT":
                raise KeyboardInterrupt
            self.stopping = signal.Signals(number).name

        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        previous = {s: signal.signal(s, ask) for s in wanted}
        for handler in previous.values():
            if isinstance(handler, Early):
                self.stopping = handler.heard
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
