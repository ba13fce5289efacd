"""A study as one archive, and back in on another machine.

Archives hold run and study folders without checkpoints, and last of all an index of their files.
Reading one goes to its end, counts it against the index, keeps to limits of size and depth, writes
nothing outside the results folder, overwrites nothing that is there, and executes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bench.errors import UsageError, printable
from bench.store import studies
from bench.store.files import file_mode, is_temporary, temporary
from bench.store.store import Store
from bench.store.studies import StudyFolder

PARTS = ("runs", "studies")
LEFT_OUT = ("checkpoints", "run.lock", ".index.json")

RECORDS = (
    *("record.json", "config.json", "provenance.json", "status.json", "metrics.jsonl"),
    *("correct.json", "plan.json", "resolved.yaml"),
)
"""Files from which a report is made; no weights, no logs, no paths of a machine."""

INDEX = "index.json"
"""Last member of an archive: size and SHA-256 of each file in it. Older archives have none."""

MOST_FILES = 1_000_000
DEEPEST = 8
"""Folders above a file, at most; a run's own files lie three deep."""

MOST_EXPANSION, SMALL = 100, 64 * 2**20
"""Bytes unpacked from one of the archive, at most, and bytes that are never too many."""


def export(store: Store, folders: Iterable[Path], target: Path, records_only: bool = False) -> int:
    """Packs folders of the store into a .tar.gz, atomically; returns how many.

    ``records_only`` takes :data:`RECORDS` alone: enough for every table and plot, not to go on.
    Files that are being written are left out, and the archive itself where it lies in a folder.
    """
    folders, wanted = list(folders), _record if records_only else _clean
    target.parent.mkdir(parents=True, exist_ok=True)
    own = os.path.realpath(target)
    handle, half = temporary(target)
    os.close(handle)
    try:
        with tarfile.open(half, "w:gz") as archive:
            index: dict[str, Any] = {}
            for path in (p for f in folders for p in _found(f) if os.path.realpath(p) != own):
                member = wanted(archive.gettarinfo(path, path.relative_to(store.root).as_posix()))
                if member is not None and (member.isfile() or member.isdir()):
                    _add(archive, member, path, index)
            _add_index(archive, index)
        os.chmod(half, file_mode())
        os.replace(half, target)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise
    return len(folders)


def _found(folder: Path) -> list[Path]:
    """A folder and all in it, sorted; what a run may remove at any time is not looked at."""
    found = [folder]
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        kept = [name for name in files if name not in LEFT_OUT and not is_temporary(name)]
        found += [Path(place, name) for name in (*folders, *kept)]
    return sorted(found)


def _add(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, index: dict[str, Any]
) -> None:
    """Adds a file or folder, and a file's size and sum as they were read to the index.

    The size is that of the file that was opened: a status is replaced while its run is computed.
    """
    if member.isdir():
        archive.addfile(member)
        return
    with path.open("rb") as file:
        member.size, source = os.fstat(file.fileno()).st_size, _Summed(file)
        archive.addfile(member, source)
    index[member.name] = {"size": member.size, "sha256": source.digest.hexdigest()}


class _Summed:
    """A file whose SHA-256 is known once it has been read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _add_index(archive: tarfile.TarFile, index: dict[str, Any]) -> None:
    data = json.dumps({"schema": 1, "files": index}, sort_keys=True).encode()
    member = tarfile.TarInfo(INDEX)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


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
        UsageError: if the file is no archive of this kind, is damaged, or holds anything else.
    """
    if not source.is_file():
        raise UsageError(f"archive '{source}' does not exist, or is no file.")
    fresh = not store.root.exists()
    store.check_writable()
    try:
        return _unpack(store, source)
    except BaseException:
        if fresh:
            with contextlib.suppress(OSError):  # another command may have begun to fill it
                store.runs.rmdir()
                store.root.rmdir()
        raise


def opened(place: Path, source: Path, study: str = "") -> tuple[Store, StudyFolder]:
    """A study of an archive, by name or its newest, unpacked into a folder ``place`` to be read.

    Raises:
        UsageError: as :func:`unpack`; or if the archive holds no study, or none of that name.
    """
    store = Store(place)
    unpack(store, source)
    if not studies.planned(store):
        runs = [folder.run_id for folder in store.folders()]
        holds = f"run '{runs[0]}'" if len(runs) == 1 else f"{len(runs)} runs"
        raise UsageError(
            f"archive '{source}' holds {holds} and no study. Bring it into a results folder, as "
            f"'import {source} --out DIR', and see 'report --all --out DIR'."
        )
    return store, studies.find(store, study)


def _unpack(store: Store, source: Path) -> tuple[list[str], list[str]]:
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".import-") as folder:
        try:
            with tarfile.open(source) as archive:
                _extract(archive, Path(folder), _limit(source))
        except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
            raise UsageError(f"cannot read archive '{source}': {error}. Copy it again.") from error
        return _adopt(store, Path(folder))


def _limit(source: Path) -> int:
    return max(SMALL, MOST_EXPANSION * source.stat().st_size)


@dataclass
class _Tally:
    """What has been unpacked so far, against what the index says."""

    limit: int
    index: dict[str, Any] | None = None
    size: int = 0
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    def count(self, member: tarfile.TarInfo) -> None:
        """Raises UsageError as soon as the archive unpacks to more than an honest one can."""
        self.size += member.size
        if self.size > self.limit or len(self.seen) > MOST_FILES:
            raise _refused(
                f"it unpacks to more than {self.limit / 2**20:.0f} MiB or {MOST_FILES} files"
            )

    def close(self) -> None:
        """Raises ValueError if files are missing or differ from the index."""
        if self.index is None or self.index == self.seen:
            return
        names = self.index.keys() | self.seen.keys()
        other = sorted(n for n in names if self.index.get(n) != self.seen.get(n))
        raise ValueError(
            f"{len(other)} of {len(self.index)} files are missing or damaged, first '{other[0]}'"
        )


def _extract(archive: tarfile.TarFile, folder: Path, limit: int) -> None:
    """Unpacks all of an archive, checked member by member and at its end."""
    tally = _Tally(limit)
    for member in archive:
        tally.count(member)
        if member.name == INDEX and member.isfile():
            tally.index = _read_index(archive, member)
            continue
        _check(member)
        if member.isdir():
            (folder / member.name).mkdir(parents=True, exist_ok=True)
            continue
        tally.seen[member.name] = _write(archive, member, folder / member.name)
    _read_rest(archive)
    tally.close()


def _read_index(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    values = json.loads(_opened(archive, member).read())
    files = values.get("files") if isinstance(values, dict) else None
    if not isinstance(files, dict):
        raise ValueError("its index is damaged")
    return files


def _check(member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name).parts
    inside = len(parts) >= 2 and parts[0] in PARTS and ".." not in parts
    if not inside or not (member.isfile() or member.isdir()):
        raise _refused(f"its member '{printable(member.name)}' is not a run or study file")
    if len(parts) > DEEPEST or max(len(p.encode(errors="replace")) for p in parts) > 255:
        raise _refused(f"its member '{printable(member.name[:80])}' lies too deep or is too long")
    if printable(member.name) != member.name:
        raise _refused(f"its member '{printable(member.name)}' has control characters in its name")


def _refused(why: str) -> UsageError:
    return UsageError(f"archive refused: {why}; nothing was imported.")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"'{member.name}' cannot be read")
    return file


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> dict[str, Any]:
    """Writes one file, and says what it holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, source = hashlib.sha256(), _opened(archive, member)
    with path.open("xb") as file:
        while block := source.read(2**20):
            digest.update(block)
            file.write(block)
        size = file.tell()
    if size != member.size:
        raise EOFError(f"'{member.name}' is cut short")
    return {"size": size, "sha256": digest.hexdigest()}


def _read_rest(archive: tarfile.TarFile) -> None:
    """Reads on to the end of the file, so that a compressed one checks its sum.

    Raises:
        ValueError: if anything follows the last readable member: tarfile ends there in silence.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    while block := archive.fileobj.read(2**20):
        if block.count(0) != len(block):
            raise ValueError("it is damaged in the middle")


def _adopt(store: Store, folder: Path) -> tuple[list[str], list[str]]:
    taken, kept = [], []
    for part in PARTS:
        for found in sorted((folder / part).glob("*")):
            target = store.root / part / found.name
            if target.exists() and not _only_registered(target):
                kept.append(found.name)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                _fill(target, found)
            else:
                shutil.move(found, target)
            taken.append(found.name)
    return taken, kept


def _only_registered(folder: Path) -> bool:
    """Whether a run waits to be computed: its settings are there and nothing else."""
    return folder.is_dir() and [path.name for path in folder.iterdir()] == ["config.json"]


def _fill(target: Path, found: Path) -> None:
    """Moves what a run lacks into its folder, the record last: with it the run is done."""
    for path in sorted(found.iterdir(), key=lambda p: p.name == RECORDS[0]):
        if not (target / path.name).exists():
            shutil.move(path, target / path.name)
