"""Resumable states: atomic, several kept, and an unreadable one never costs the run."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

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


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Writes named tensors as safetensors, atomically."""
    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in weights.items()}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, on the CPU."""
    return load_file(path)
