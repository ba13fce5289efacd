"""Images on a node's own disk: copied or unpacked there once, before the first run reads them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from bench.errors import UsageError
from bench.plan.identity import digest

ARRAYS = ".npz"
"""Suffix of a file that is read as it is, though it is a zip archive."""


def staged(source: Path, to: str) -> Path:
    """Where under ``to`` ``source`` lies: a folder of images, an archive of one, or an npz file.

    Variables in ``to`` are those of this process. Of several processes and jobs on a node the
    first one copies, and the others wait for it; what a kill left half done is never used.

    Raises:
        UsageError: if a variable is not set here.
    """
    place = os.path.expandvars(to)
    if "$" in place:
        raise UsageError(f"stage = '{to}': a variable of it is not set in the job ('{place}').")
    target = Path(place) / f"mto-bench-{source.name}-{digest(str(source), *_state(source))}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as half:
                _fill(source, Path(half) / "whole")
                (Path(half) / "whole").rename(target)
    if source.suffix == ARRAYS:
        return target / source.name
    return target if source.is_dir() else _inside(target)


def _state(source: Path) -> list[int]:
    """What changes with the file, or with the folder and those in it: no file of one is read."""
    if not source.is_dir():
        about = source.stat()
        return [about.st_size, about.st_mtime_ns]
    folders = [source, *(f for f in sorted(source.iterdir()) if f.is_dir())]
    folders += [f for part in folders[1:] for f in sorted(part.iterdir()) if f.is_dir()]
    return [folder.stat().st_mtime_ns for folder in folders]


def _fill(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.suffix == ARRAYS:
        target.mkdir()
        shutil.copy(source, target)
    elif zipfile.is_zipfile(source):
        shutil.unpack_archive(source, target, "zip")
    else:
        shutil.unpack_archive(source, target, filter="data")


def _inside(folder: Path) -> Path:
    """The only folder of an archive that holds nothing else, or the folder itself."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
