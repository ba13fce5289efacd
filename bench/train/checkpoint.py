"""Resumable states: atomic, several kept, and an unreadable one never costs the run."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.errors import DamagedError
from bench.store.files import write_bytes

log = logging.getLogger(__name__)


CHECKSUM_BYTES = 16
"""Length of the checksum a state begins with: torch reads damaged tensors without complaint."""


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=CHECKSUM_BYTES).digest()


def save_state(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> None:
    """Writes the state after ``step`` steps and removes all but the newest ``keep`` files.

    Also removes what a kill inside an earlier write left behind.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_bytes(folder / f"step-{step:09d}.pt", _checksum(payload) + payload)
    for old in [*_newest_first(folder)[keep:], *folder.glob(".step-*")]:
        old.unlink(missing_ok=True)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest readable state, or None; unreadable files are named in a warning and skipped.

    Only tensors and plain values are loaded, never code.
    """
    for path in _newest_first(folder):
        try:
            data = path.read_bytes()
            if _checksum(data[CHECKSUM_BYTES:]) != data[:CHECKSUM_BYTES]:
                raise ValueError("checksum does not match")
            payload = io.BytesIO(data[CHECKSUM_BYTES:])
            state: dict[str, Any] = torch.load(payload, map_location="cpu", weights_only=True)
            return state
        except Exception as error:
            log.warning("checkpoint %s is unreadable (%s); trying the one before", path.name, error)
    return None


def clear(folder: Path) -> None:
    """Removes all states of a finished run."""
    for path in [*_newest_first(folder), *folder.glob(".step-*")]:
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"), reverse=True) if folder.is_dir() else []


CHECKSUM = "sha256"
"""Where a file of weights keeps the checksum of its tensors, among the metadata."""


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Writes named tensors as safetensors with their checksum, atomically."""
    kept = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    write_bytes(path, save(kept, {CHECKSUM: _checksum_of(kept)}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, on the CPU; files without a checksum are taken as is.

    Raises:
        DamagedError: if the file is cut, or is not what was saved.
    """
    try:
        with safe_open(path, framework="pt") as file:
            wanted = (file.metadata() or {}).get(CHECKSUM)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedError(f"'{path}' is damaged or cut ({error}). {RESTORE}") from error
    if wanted and _checksum_of(weights) != wanted:
        raise DamagedError(f"'{path}' is damaged: its checksum does not match. {RESTORE}")
    return weights


RESTORE = (
    "Restore it from a copy, or remove the folder of its run and give --retry: it is computed anew."
)


def _checksum_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of names."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
