"""Files: atomic writes, readable JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Name of a file that is being written: its later name between points, and eight signs."""


def temporary(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, open, to be renamed to it once it is whole; and its name."""
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is being written, or was when its writer died."""
    return TEMPORARY.fullmatch(name) is not None


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replaces ``path`` by ``data`` atomically: readers see the old file or the new one.

    ``durable`` also waits until the disk has it, so that it survives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, half = temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), file_mode())
            if durable:
                os.fsync(file.fileno())
        os.replace(half, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(half)
        raise


def set_aside(path: Path) -> Path:
    """Renames a damaged file to ``NAME.damaged-K`` before it is written anew; its new place."""
    names = (path.with_name(f"{path.name}.damaged-{k}") for k in itertools.count(1))
    place = next(p for p in names if not p.exists())
    os.rename(path, place)
    return place


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
    """The JSON object in ``path``, or None if there is none or it is unreadable.

    For files that are written anew when they are torn; the others have a shape
    (:mod:`bench.store.shapes`).
    """
    try:
        values = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
