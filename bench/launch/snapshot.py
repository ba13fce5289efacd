"""A copy of the code at launch, so that editing it does not change jobs that still wait."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from bench.machine import provenance
from bench.store.files import write_json


def take_snapshot(folder: Path) -> Path:
    """Copies the packages into a sub-folder of ``folder`` named by their content; its path.

    A copy that is there already is used again. Provenance reads the commit from the copy.
    """
    files = _files()
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name}\0".encode() + path.read_bytes())
    target = folder / digest.hexdigest()[:12]
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".snapshot."))
    for name, path in files.items():
        copy = fresh / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    write_json(fresh / provenance.SNAPSHOT, provenance.code())
    fresh.chmod(0o755)
    try:
        os.rename(fresh, target)
    except OSError:  # another launch was faster
        shutil.rmtree(fresh)
    return target


def _files() -> dict[Path, Path]:
    """Every file of the registry's packages, by its place in the copy."""
    found: dict[Path, Path] = {}
    for place in provenance.folders().values():
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        found |= {path.relative_to(place.parent): path for path in files if _wanted(path)}
    return found


def _wanted(path: Path) -> bool:
    return (
        path.is_file()
        and "__pycache__" not in path.parts
        and path.name != Path(provenance.SNAPSHOT).name
    )
