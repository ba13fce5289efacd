"""One run's folder: append-only, every write atomic, the only truth.

``<out>/runs/<run id>/``
    config.json       resolved configuration (all defaults spelled out)
    provenance.json   code, versions, hardware, data fingerprint
    status.json       state, attempts, failure class; its ``beat`` is the heartbeat
    metrics.jsonl     one line per logged step, append-only
    correct.json      which test images an evaluation got right, one bit an image
    record.json       the result, written once, last
    checkpoints/      resumable states; encoder.safetensors beside them
    run.lock          held by the process that computes the run
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BusyError, DamagedError
from bench.store.files import read_json, write_json
from bench.store.shapes import (
    CONFIG,
    METRICS,
    PROVENANCE,
    RESULT,
    STATUS,
    clean,
    misfits,
    read_state,
)
from bench.store.states import DONE, PENDING, RUNNING, STOPPED

BEAT_KEPT_S = 600.0
"""Age up to which a heartbeat of another machine counts; locks may not cross file systems."""

LOCK_TRIES, LOCK_WAIT_S = 5, 0.1
"""A reader that asks whether a run is locked holds the lock for an instant itself."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and its files."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable states."""
        return self.path / "checkpoints"

    @property
    def encoder(self) -> Path:
        """The pre-trained encoder under timm's names."""
        return self.path / "encoder.safetensors"

    @property
    def method(self) -> Path:
        """The whole method as pre-training left it, its encoder's weights among the others."""
        return self.path / "method.safetensors"

    @property
    def log(self) -> Path:
        """Text log of all attempts."""
        return self.path / "log.txt"

    def config(self) -> dict[str, Any] | None:
        """The resolved configuration, or None if never started.

        Raises:
            StoreError: if the file is damaged.
        """
        return read_state(self.path / "config.json", CONFIG, ("config",))

    def status(self) -> dict[str, Any]:
        """The last status; ``pending`` when there is none. A record means ``done``."""
        status = self.word()
        if status["state"] == RUNNING and not self.is_locked() and not self._beats(status):
            status["state"] = STOPPED
        elif status["state"] == DONE and not self.is_done():
            status |= {"state": STOPPED, "message": "its record is lost or damaged"}
        return status

    def word(self) -> dict[str, Any]:
        """The status as the run left it, whether it lives or not, without what does not fit."""
        kept = read_json(self.path / "status.json") or {}
        wrong = misfits(kept, STATUS)
        return {"state": PENDING, **clean({k: v for k, v in kept.items() if k not in wrong})}

    def _beats(self, status: dict[str, Any]) -> bool:
        """Whether another machine, whose lock may not be seen here, gave a sign lately."""
        elsewhere = self.claim().split()[2:] not in ([], [host_key()])
        return elsewhere and abs(now() - status.get("beat", 0.0)) < BEAT_KEPT_S

    def set_status(self, state: str, **values: Any) -> None:
        """Replaces the status, keeping earlier values that are not given anew.

        Where the folder is gone, none is made.
        """
        if self.path.is_dir():
            status = {**self.word(), **values, "state": state, "beat": now()}
            write_json(self.path / "status.json", status, durable=state != RUNNING)

    def cancel(self) -> None:
        """Tells a launcher that has yet to start the run not to."""
        write_json(self.path / "cancelled.json", {"time": now(), "mark": os.urandom(8).hex()})

    def cancellation(self) -> str:
        """The mark of the last :meth:`cancel`, '' if there was none.

        A launcher heeds marks that were not there when it began: clocks have no say in it.
        """
        try:
            return (self.path / "cancelled.json").read_text(errors="replace")
        except OSError:
            return ""

    def images(self) -> str:
        """Fingerprint of the images the run saw, '' if it has not started or that is lost."""
        with contextlib.suppress(DamagedError):
            return str((self.provenance() or {}).get("data", ""))
        return ""

    def provenance(self) -> dict[str, Any] | None:
        """Code, versions, hardware and images of the run, None if it has not started.

        Raises:
            StoreError: if the file is damaged.
        """
        return read_state(self.path / "provenance.json", PROVENANCE, ("code", "hardware"))

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Appends one line to metrics.jsonl; a line torn by a kill is closed first."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(("\n" * torn + json.dumps(values) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """All logged lines; of lines for the same step (after a resume) the last one counts."""
        lines: dict[Any, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            texts = (self.path / "metrics.jsonl").read_text(errors="replace").splitlines()
            for number, text in enumerate(texts):
                with contextlib.suppress(ValueError, TypeError, RecursionError):
                    values = json.loads(text)
                    if not isinstance(values, dict) or misfits(values, METRICS):
                        continue
                    values = clean(values)
                    key = (values.get("stage"), values.get("step", -number))
                    lines.pop(key, None)
                    lines[key] = values
        return list(lines.values())

    def result(self) -> dict[str, Any] | None:
        """The values of record.json, or None if the run is not done.

        Raises:
            DamagedError: if the file is damaged.
        """
        return read_state(self.path / "record.json", RESULT, ("run_id",))

    def is_done(self) -> bool:
        """Whether the run has finished and left a result that can be read."""
        with contextlib.suppress(DamagedError):
            return self.result() is not None
        return False

    def is_locked(self) -> bool:
        """Whether a living process on this machine computes the run now.

        A file that may not be written, as a colleague's, is asked all the same; others are opened
        for writing, since some network file systems lock no file that is open for reading alone.
        """
        path = self.path / "run.lock"
        try:
            with path.open("r+" if os.access(path, os.W_OK) else "r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True

    @contextlib.contextmanager
    def lock(self) -> Iterator[str]:
        """Holds the run for this process; the system releases it if the process dies.

        Yields the claim that the lock file now holds, see :meth:`claim`.

        Raises:
            BusyError: if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "run.lock").open("a+") as file:
            for left in reversed(range(LOCK_TRIES)):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if not left:
                        message = f"run {self.run_id} is being computed by another process"
                        raise BusyError(message) from error
                    time.sleep(LOCK_WAIT_S)
            claim = f"{os.getpid()} {os.urandom(8).hex()} {host_key()}"
            file.truncate(0)
            file.write(claim)
            file.flush()
            yield claim

    def claim(self) -> str:
        """Process id, token and machine of the last holder of the run; '' if there was none."""
        try:
            return (self.path / "run.lock").read_text(errors="replace")
        except OSError:
            return ""


def host_key() -> str:
    """A short hash that tells machines apart without naming them."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def now() -> float:
    """Wall-clock seconds since the epoch."""
    return time.time()
