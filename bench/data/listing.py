"""Which files of a folder are its images, by class: names alone, no torch, nothing opened.

Classes are numbered in the order of their names, files follow in that of theirs, folders inside a
class included: torchvision's ``ImageFolder`` numbers them alike.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError

IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"}
)
"""Endings of pictures, in small letters."""

LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""What file managers leave; like names that begin with a dot it counts as nothing at all."""

SAMPLE, PIECE = 256, 1 << 15
"""Files of a split that are read for its fingerprint, and bytes from either end of each."""


@dataclass(frozen=True)
class Listing:
    """Images of one split: ``paths`` and their ``labels``, the classes' ``names``.

    ``left_out`` counts the other files by their endings.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    left_out: Mapping[str, int]


def list_images(folder: Path, but: Sequence[str] = ()) -> Listing:
    """The images of ``folder/CLASS/**``, a folder of the names ``but`` being no class.

    Raises:
        DataError: if there is no class folder, or the folder cannot be read.
    """
    try:
        folders = (e.name for e in os.scandir(folder) if e.is_dir() and not is_litter(e.name))
        found = sorted(name for name in folders if name not in but)
    except OSError as error:
        raise DataError(f"cannot read '{folder}': {error.strerror}.") from error
    if not found:
        raise DataError(
            f"no images under '{folder}': it holds no class folders. Expected CLASS/*."
            f"{about_shards(folder)}"
        )
    paths: list[str] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    for number, name in enumerate(found):
        here = _images(os.path.join(folder, name), left_out)
        paths += here
        labels += [number] * len(here)
    return Listing(tuple(found), tuple(paths), tuple(labels), dict(left_out))


def list_unlabelled(folder: Path, label: int) -> Listing:
    """The images of ``folder/**``, all with one label; sub-folders mean nothing.

    Raises:
        DataError: if there is none, or the folder cannot be read.
    """
    left_out: Counter[str] = Counter()
    paths = _images(str(folder), left_out)
    if not paths:
        others = f", but {sum(left_out.values())} other file(s)" if left_out else ""
        raise DataError(
            f"'{folder}' holds no images{others}. Put the unlabelled ones there, in sub-folders or "
            f"not, or take that folder away.{about_shards(folder)}"
        )
    return Listing((), tuple(paths), (label,) * len(paths), dict(left_out))


def _images(folder: str, left_out: Counter[str]) -> list[str]:
    """Images below a folder; other files are counted by their endings."""
    found = []
    for path in _files(folder):
        ending = os.path.splitext(path)[1].lower()
        if ending in IMAGES:
            found.append(path)
        else:
            left_out[ending or "no ending"] += 1
    return found


def about_shards(folder: Path) -> str:
    """A sentence on tar shards, where a folder holds some."""
    if not any(folder.glob("*.tar")):
        return ""
    return (
        " It holds tar shards, which --data tar:DIR reads: DIR/train*.tar and DIR/val*.tar, or "
        "DIR/train/*.tar and DIR/val/*.tar."
    )


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name counts as nothing at all."""
    return name.startswith(".") or name in LITTER


def _files(folder: str) -> Iterator[str]:
    """Files below a folder in order of their names; links are followed, each folder once."""
    met, found = set(), []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in met:
            folders.clear()
            continue
        met.add((stat.st_dev, stat.st_ino))
        folders[:] = [f for f in folders if not is_litter(f)]
        found.append((place, sorted(f for f in files if not is_litter(f))))
    for place, files in sorted(found):
        yield from (os.path.join(place, f) for f in files)


def _raise(error: OSError) -> None:
    raise DataError(f"cannot read '{error.filename}': {error.strerror}.") from error


Stamp = tuple[int, int, int]
"""Device, number and size of a file."""


def stamps(paths: Sequence[str]) -> list[Stamp]:
    """The stamp of each file.

    Raises:
        DataError: if one has gone.
    """
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError as error:
            raise DataError(f"cannot read image '{path}': {error.strerror}.") from error
        found.append((stat.st_dev, stat.st_ino, stat.st_size))
    return found


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` numbers spread over ``range(count)``."""
    if count <= wanted:
        return list(range(count))
    return sorted({i * (count - 1) // (wanted - 1) for i in range(wanted)})


def piece(path: str, size: int) -> bytes:
    """Bytes from both ends of a file; nothing of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(PIECE)
            file.seek(max(len(head), size - PIECE))
            return head + file.read(PIECE)
    except OSError:
        return b""


def content(paths: Sequence[str], sizes: Sequence[int]) -> str:
    """Hash of all sizes and of a sample of the bytes, 8 hexadecimal digits."""
    digest = hashlib.sha256("\n".join(map(str, sizes)).encode())
    for index in spread(len(paths), SAMPLE):
        digest.update(hashlib.sha256(piece(paths[index], sizes[index])).digest())
    return digest.hexdigest()[:8]


def same_images(one: str, other: str) -> bool:
    """Whether two fingerprints may be of the same images.

    A fingerprint is one part for each split, of which what follows the dot is its content; those
    of earlier versions lack it, and are compared by the rest.
    """
    sides = one.split("-"), other.split("-")
    pairs = [(a.split("."), b.split(".")) for a, b in zip(*sides, strict=False)]
    alike = all(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return alike and len(sides[0]) == len(sides[1])
