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
    root = provenance.ROOT
    files = [
        p for name in provenance.SOURCES for p in sorted((root / name).rglob("*")) if _wanted(p)
    ]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    target = folder / digest.hexdigest()[:12]
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".snapshot."))
    for path in files:
        copy = fresh / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    write_json(fresh / provenance.SNAPSHOT, provenance.code())
    fresh.chmod(0o755)
    try:
        os.rename(fresh, target)
    except OSError:  # another launch was faster
        shutil.rmtree(fresh)
    return target


def _wanted(path: Path) -> bool:
    return (
        path.is_file()
        and "__pycache__" not in path.parts
        and path.name != Path(provenance.SNAPSHOT).name
    )
