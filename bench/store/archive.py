"""A study as one archive, and back in on another machine.

Archives hold run and study folders without checkpoints. Reading one writes nothing outside the
results folder, overwrites nothing that is there, and executes nothing.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from bench.errors import UsageError
from bench.store.store import Store, file_mode

PARTS = ("runs", "studies")
LEFT_OUT = ("checkpoints", "run.lock", ".index.json")

RECORDS = (
    *("record.json", "config.json", "provenance.json", "status.json", "metrics.jsonl"),
    *("plan.json", "resolved.yaml"),
)
"""Files from which a report is made; no weights, no logs, no paths of a machine."""


def export(store: Store, folders: Iterable[Path], target: Path, records_only: bool = False) -> int:
    """Packs folders of the store into a .tar.gz, atomically; returns how many.

    ``records_only`` takes :data:`RECORDS` alone: enough for every table and plot, not to go on.
    """
    count = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        with tarfile.open(temporary, "w:gz") as archive:
            for folder in folders:
                place = folder.relative_to(store.root).as_posix()
                archive.add(folder, place, filter=_record if records_only else _clean)
                count += 1
        os.chmod(temporary, file_mode())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return count


def _clean(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Drops checkpoints and locks, and the names of users and groups."""
    if any(part in LEFT_OUT for part in PurePosixPath(member.name).parts):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _record(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Keeps records alone, without the times of their files."""
    parts = PurePosixPath(member.name).parts
    if len(parts) > 2 and (len(parts) > 3 or parts[-1] not in RECORDS):
        return None
    member.mtime = 0
    return _clean(member)


def unpack(store: Store, source: Path) -> tuple[list[str], list[str]]:
    """Brings an archive's folders into the store; returns the names taken and those kept as is.

    Raises:
        UsageError: if the file is no archive of this kind or holds anything else.
    """
    store.check_writable()
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".import-") as folder:
        try:
            with tarfile.open(source) as archive:
                _check(archive)
                archive.extractall(folder, filter="data")
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise UsageError(f"cannot read archive '{source}': {error}") from error
        return _adopt(store, Path(folder))


def _check(archive: tarfile.TarFile) -> None:
    for member in archive:
        parts = PurePosixPath(member.name).parts
        inside = len(parts) >= 2 and parts[0] in PARTS and ".." not in parts
        if not inside or not (member.isfile() or member.isdir()):
            raise UsageError(
                f"archive member '{member.name}' is not a run or study file; nothing was imported."
            )


def _adopt(store: Store, folder: Path) -> tuple[list[str], list[str]]:
    taken, kept = [], []
    for part in PARTS:
        for found in sorted((folder / part).glob("*")):
            target = store.root / part / found.name
            if target.exists():
                kept.append(found.name)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(found, target)
            taken.append(found.name)
    return taken, kept
