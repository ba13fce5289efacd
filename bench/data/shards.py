"""Tar shards in webdataset's layout: what lies where, so that any image can be read at any time.

``KEY.jpg`` (or another ending of a picture) and ``KEY.cls``, a class number, are one sample; KEY
ends at the first dot of the file's name. A shard's headers are read once: what was found is kept in
the cache folder, under the shard's path, size and time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bench.data.listing import IMAGES, is_litter
from bench.errors import DataError, printable
from bench.machine import cache
from bench.store.files import read_json, write_bytes

BLOCK, MOST_PADDING = 512, 1 << 22
"""Bytes of a tar's block, and of zeros that may end one: a program's record is some blocks long."""

LABEL = 40
"""Bytes that are read of a class number."""

FORMAT = 1
"""Of what is kept; raised when it changes."""


class Item(NamedTuple):
    """An image: its shard, its name there, its place in bytes, its label if it has one."""

    shard: str
    name: str
    offset: int
    size: int
    label: int | None

    def read(self) -> bytes:
        """Its bytes. The file is opened anew, so that no two processes share a position.

        Raises:
            ValueError: if the shard has been cut since it was listed.
        """
        with open(self.shard, "rb", buffering=0) as file:
            found = os.pread(file.fileno(), self.size, self.offset)
        if len(found) < self.size:
            raise ValueError(f"its shard '{Path(self.shard).name}' has been cut")
        return found


@dataclass(frozen=True)
class Shard:
    """The images of a shard in its order; ``left_out`` counts members by what they lack."""

    items: tuple[Item, ...]
    left_out: Mapping[str, int]


def open_shard(path: Path) -> Shard:
    """What a shard holds, from the cache if it lies there.

    Raises:
        DataError: if it is no whole tar, or a sample in it is no sample.
    """
    try:
        place = _place(path)
        found = read_json(place) if place else None
        if found is None:
            found = _listed(path)
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
                if place:
                    write_bytes(place, json.dumps(found).encode(), durable=False)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"cannot read '{path}' as a tar: {printable(str(error))}.") from error
    return Shard(tuple(Item(str(path), *item) for item in found["items"]), found["left_out"])


def _place(path: Path) -> Path | None:
    """Where is kept what this shard holds."""
    folder, stat = cache.folder(), path.stat()
    name = f"{FORMAT}\n{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:32]
    return folder and folder / "shards" / f"{digest}.json"


def _listed(path: Path) -> dict[str, Any]:
    """Name, place and label of each image, as they are kept."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    with open(path, "rb") as file:
        for member in _members(file):
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.lower().partition(".")
            key = folder + slash + name[: len(stem)]
            if is_litter(name) or member.isdir():
                continue
            if not member.isreg() or member.issparse():
                left_out["no plain file"] += 1
            elif ending == "cls":
                _once(labels, key, member, path)
                size = min(LABEL, member.size)
                labels[key] = _label(os.pread(file.fileno(), size, member.offset_data), member)
            elif f".{ending}" in IMAGES:
                _once(images, key, member, path)
                images[key] = member
    if alone := len(labels.keys() - images.keys()):
        left_out["without an image"] = alone
    items = [(m.name, m.offset_data, m.size, labels.get(key)) for key, m in images.items()]
    return {"items": items, "left_out": left_out}


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All members of a tar, which must be whole: where a header is damaged, tarfile just ends."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        yield from iter(archive.next, None)
        rest = os.fstat(file.fileno()).st_size - archive.offset
        if rest < BLOCK:
            raise tarfile.ReadError("it has been cut: the blocks of zeros that end one are missing")
        if rest > MOST_PADDING or any(os.pread(file.fileno(), rest, archive.offset)):
            raise tarfile.ReadError(
                f"at byte {archive.offset} there is neither a file nor its end; it is damaged, or "
                "several in one"
            )


def _once(known: Mapping[str, object], key: str, member: tarfile.TarInfo, path: Path) -> None:
    if key in known:
        raise DataError(
            f"'{path}' holds two {'labels' if member.name.endswith('cls') else 'images'} of the "
            f"sample '{printable(key)}', the second as '{printable(member.name)}'. Keep one."
        )


def _label(content: bytes, member: tarfile.TarInfo) -> int:
    text = content.decode(errors="replace").strip()
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise DataError(
            f"'{printable(member.name)}' holds no class number but '{printable(text)}'. Number the "
            "classes from 0."
        )
    return int(text)
