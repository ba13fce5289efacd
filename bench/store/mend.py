"""What a study's command mends before it computes: damage is set aside, leftovers are removed.

What is set aside keeps its bytes (``NAME.damaged-K``); what was lost is then computed anew.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.errors import BusyError, DamagedError, printable
from bench.store.correct import FILE as CORRECT
from bench.store.correct import read_correct
from bench.store.files import set_aside
from bench.store.folder import RunFolder
from bench.store.record import load_record
from bench.store.shapes import STATUS, read_state
from bench.store.states import RUNNING


def mend(folder: RunFolder, weights_wanted: bool = False) -> list[str]:
    """Mends a run's folder, unless it is being computed; a note on each file that was set aside.

    ``weights_wanted`` says that a run is to be computed that needs this one's encoder.

    Raises:
        StoreError: if a file cannot be read, or was written by a newer version.
    """
    if not folder.path.is_dir() or folder.status()["state"] == RUNNING:
        return []
    if not (_faults(folder, weights_wanted) or _leftovers(folder)):
        return []
    try:
        with folder.lock():
            faults = _faults(folder, weights_wanted)
            notes = [_put_aside(path, why) for path, why in faults.items()]
            for path in _leftovers(folder):
                _remove(path)
    except BusyError:  # whoever computes it mends it
        return []
    return notes


def _faults(folder: RunFolder, weights_wanted: bool) -> dict[Path, str]:
    """Files that are to be set aside, and why."""
    record, encoder = folder.path / "record.json", folder.encoder
    status = folder.path / "status.json"
    found: dict[Path, str] = {}
    found |= _damage(folder.path / "config.json", folder.config)
    found |= _damage(status, lambda: read_state(status, STATUS))
    found |= _damage(record, lambda: (folder.result(), load_record(folder)))
    if not folder.is_done():
        found |= _damage(folder.path / "provenance.json", folder.provenance)
    elif bits := _damage(folder.path / CORRECT, lambda: read_correct(folder)):
        found |= {**bits, record: f"'{CORRECT}', which belongs to it, is damaged"}
    elif weights_wanted and not is_whole(encoder):
        found |= {encoder: "it is cut"} if encoder.exists() else {}
        if not has_weights(folder):
            found[record] = f"'{encoder.name}', which belongs to it, is lost or cut"
    return found


def _damage(path: Path, read: Callable[[], object]) -> dict[Path, str]:
    try:
        read()
    except DamagedError as error:
        return {path: str(error).partition("edited: ")[2].partition(". ")[0]}
    return {}


def _put_aside(path: Path, why: str) -> str:
    place = set_aside(path)
    name = printable("/".join(path.parts[-3:]))
    return f"'{name}' was set aside as '{place.name}': {why}"


def has_weights(folder: RunFolder) -> bool:
    """Whether a pre-training has its encoder, or the method to take it from.

    Where other files of it are lost too, it is computed anew: that brings them all back.
    """
    others = ("config.json", "provenance.json", "metrics.jsonl")
    rest = all((folder.path / name).exists() for name in others)
    return is_whole(folder.encoder) or (rest and is_whole(folder.method))


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is there with all the bytes that its head tells of."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            total = path.stat().st_size
            if size > total:
                return False
            tensors = json.loads(file.read(size))
        tensors.pop("__metadata__", None)
        return 8 + size + max(t["data_offsets"][1] for t in tensors.values()) == total
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _leftovers(folder: RunFolder) -> list[Path]:
    """What kills left: unfinished files of weights, and states of a run that is done."""
    found = list(folder.path.glob(".*.safetensors.*"))
    if folder.is_done():
        found += (p for p in folder.checkpoints.glob("*") if any(p.glob("*")))
    return found


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
