"""Run folders: the only truth. One folder a run, append-only, every write atomic.

``<out>/runs/<run id>/``
    config.json       resolved configuration (all defaults spelled out)
    provenance.json   code, versions, hardware, data fingerprint
    status.json       state, attempts, failure class; its ``beat`` is the heartbeat
    metrics.jsonl     one line per logged step, append-only
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
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import BusyError, StoreError, UsageError

SCHEMA = 1
"""Version of record.json; :func:`migrate` brings older ones up to it."""

WAIT_LIMIT = 0.05
"""Share of a pre-training spent waiting for data from which on a reader is warned."""

PENDING, RUNNING, DONE, FAILED, BLOCKED, STOPPED = (
    "pending",
    "running",
    "done",
    "failed",
    "blocked",
    "stopped",
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one cell, as the report reads it. Accuracies in per cent, times in seconds.

    ``finetune_top1``, ``probe_top1`` and ``knn_top1`` are measured after the last epoch.
    ``pretrain_s`` is the time inside pre-training over all attempts, ``images_per_s`` the
    pre-training rate after the first epoch, ``device_hours`` pre-training time times the devices
    (or cores) used, ``flops`` those of pre-training (forward and backward, plug-ins included).
    ``digests`` are those of order, crop and mask.
    """

    schema: int = SCHEMA
    run_id: str
    pretrain_id: str
    arm: str
    base_arm: str
    method: str
    plugins: list[str] = field(default_factory=list)
    data: str
    model: str
    epochs: int
    seed: int
    repeat: int = 0
    status: str = DONE
    failure: str = ""
    finetune_top1: float | None = None
    probe_top1: float | None = None
    knn_top1: float | None = None
    pretrain_loss: float | None = None
    images_seen: int = 0
    images_per_s: float | None = None
    pretrain_s: float | None = None
    finetune_s: float | None = None
    device: str = ""
    device_hours: float | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None
    data_wait_share: float | None = None
    digests: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    commit: str = ""
    dirty: bool = False
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Brings the values of an older record.json up to :data:`SCHEMA`.

    Raises:
        StoreError: if the record comes from a newer version of this software.
    """
    version = values.get("schema", 0)
    if version > SCHEMA:
        raise StoreError(
            f"record of {values.get('run_id', '?')} has schema {version}, this software knows "
            f"up to {SCHEMA}. Update mto-bench to read it."
        )
    if version < 1:
        values = {**values, "schema": 1}
    return values


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replaces ``path`` by ``data`` atomically: readers see the old file or the new one.

    ``durable`` also waits until the disk has it, so that it survives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), file_mode())
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@lru_cache(maxsize=1)
def file_mode() -> int:
    """Mode of new files by the user's mask; temporary ones are private to their owner."""
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask


def write_json(path: Path, values: Any, durable: bool = True) -> None:
    """Writes ``values`` as readable JSON, atomically."""
    write_bytes(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode(), durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``, or None if there is none or it is unreadable."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


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
    def log(self) -> Path:
        """Text log of all attempts."""
        return self.path / "log.txt"

    def config(self) -> dict[str, Any] | None:
        """The resolved configuration, or None if never started."""
        return read_json(self.path / "config.json")

    def status(self) -> dict[str, Any]:
        """The last status; ``pending`` when there is none. A record means ``done``."""
        status = read_json(self.path / "status.json") or {"state": PENDING}
        if status["state"] == RUNNING and not self.is_locked() and not self._beats(status):
            status["state"] = STOPPED
        return status

    def _beats(self, status: dict[str, Any]) -> bool:
        """Whether another machine, whose lock may not be seen here, gave a sign lately."""
        elsewhere = self.claim().split()[2:] not in ([], [host_key()])
        return elsewhere and now() - status.get("beat", 0.0) < BEAT_KEPT_S

    def set_status(self, state: str, **values: Any) -> None:
        """Replaces the status, keeping earlier values that are not given anew."""
        kept = read_json(self.path / "status.json") or {}
        status = {**kept, **values, "state": state, "beat": now()}
        write_json(self.path / "status.json", status, durable=state != RUNNING)

    def cancel(self) -> None:
        """Tells a launcher that has yet to start the run not to."""
        write_json(self.path / "cancelled.json", {"time": now()})

    def cancelled_since(self, moment: float) -> bool:
        """Whether the run was cancelled after ``moment`` (seconds since the epoch)."""
        values = read_json(self.path / "cancelled.json") or {}
        return float(values.get("time", 0.0)) > moment

    def images(self) -> str:
        """Fingerprint of the images the run saw, '' if it has not started."""
        origin = read_json(self.path / "provenance.json") or {}
        return str(origin.get("data", ""))

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
            texts = (self.path / "metrics.jsonl").read_text().splitlines()
            for number, text in enumerate(texts):
                with contextlib.suppress(ValueError):
                    values = json.loads(text)
                    key = (values.get("stage"), values.get("step", -number))
                    lines.pop(key, None)
                    lines[key] = values
        return list(lines.values())

    def result(self) -> dict[str, Any] | None:
        """The values of record.json, or None if the run is not done."""
        return read_json(self.path / "record.json")

    def is_done(self) -> bool:
        """Whether the run has finished and left its result."""
        return (self.path / "record.json").exists()

    def is_locked(self) -> bool:
        """Whether a living process on this machine computes the run now."""
        try:
            with (self.path / "run.lock").open("r+") as file:
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
            return (self.path / "run.lock").read_text()
        except OSError:
            return ""


@dataclass(frozen=True)
class Store:
    """The folder that holds runs and reports."""

    root: Path

    @property
    def runs(self) -> Path:
        """Folder of run folders."""
        return self.root / "runs"

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run, whether it exists or not."""
        return RunFolder(self.runs / run_id)

    def folders(self) -> list[RunFolder]:
        """All run folders, by name."""
        if not self.runs.is_dir():
            return []
        return [RunFolder(p) for p in sorted(self.runs.iterdir()) if p.is_dir()]

    def check_writable(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            UsageError: if it cannot.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.runs):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write to output folder '{self.root}' ({error.strerror}). "
                "Choose another one with --out DIR."
            ) from error

    def records(self, ids: list[str] | None = None) -> list[Record]:
        """Records of finished or failed cells (all of them, or those named)."""
        folders = self.folders() if ids is None else [self.run(i) for i in ids]
        found = (load_record(f) for f in folders)
        return [r for r in found if r is not None]


def load_record(folder: RunFolder) -> Record | None:
    """The record of a finished cell, None for a folder without one or of a pre-training run.

    Raises:
        StoreError: if the record has unknown fields or a newer schema.
    """
    values = folder.result()
    if values is None or "pretrain_id" not in values:
        return None
    values = migrate(values)
    extra = set(values) - {f.name for f in fields(Record)}
    if extra:
        raise StoreError(f"record of {folder.run_id} has unknown fields: {sorted(extra)}")
    return Record(**values)


def host_key() -> str:
    """A short hash that tells machines apart without naming them."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def now() -> float:
    """Wall-clock seconds since the epoch."""
    return time.time()
