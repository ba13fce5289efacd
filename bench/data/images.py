"""Image sets: splits that train, test and perhaps pre-train alone, in memory or decoded one by one.

Images in memory are bytes [n, C, S, S].
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.data import decode
from bench.data.kept import Room, Size, limit
from bench.data.listing import Stamp, content, piece, spread, stamps
from bench.errors import DataError, printable

log = logging.getLogger(__name__)

TRIES = 100
"""Images of a class tried in place of an unreadable one."""

PICTURES = 64
"""Pictures of a split that are decoded for its fingerprint, where there are no files."""

MOST_REPLACED, FEW = 0.05, 3
"""Share of a split's images that may be replaced; so few are never too many."""


@dataclass(frozen=True)
class ArraySplit:
    """Images in memory: ``images`` uint8 [n, C, S, S], ``labels`` int64 [n].

    ``from_files`` says that they were read from a folder, where others could lie.
    """

    images: Tensor
    labels: Tensor
    from_files: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Image number ``index`` as RGB (or grey) picture."""
        array = self.images[index].permute(1, 2, 0).numpy()
        return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)

    def open_any(self, index: int) -> tuple[Image.Image, bool]:
        """The picture, and that it could be read."""
        return self.open(index), True

    def note_unreadable(self, ids: Tensor) -> None:
        """Nothing: images in memory can be read."""

    def fingerprint(self) -> str:
        """Hash of all bytes; after a dot that of labels that were read from files."""
        found = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        if not self.from_files:
            return found
        return f"{found}.{hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()[:8]}"


@dataclass(frozen=True)
class FileSplit:
    """Images decoded on demand: ``read(i)`` gives a picture in any mode.

    ``paths`` names them; ``files`` says that these are paths of files. Where they are not, ``raw``
    gives the bytes of one and ``lengths`` tells their numbers, if they can be had; ``packed``, that
    these are a file's, with a header. ``names`` are the classes', where they are known,
    ``left_out`` counts files that are no images by their endings, and ``unreadable`` collects the
    numbers of images met that could not be decoded. Where there is ``room``, each is decoded once.
    """

    read: Callable[[int], Image.Image]
    labels: Tensor
    paths: Sequence[str]
    files: bool = True
    raw: Callable[[int], bytes] | None = None
    lengths: Sequence[int] = ()
    packed: bool = False
    names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    unreadable: set[int] = field(default_factory=set)
    room: Room | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Image number ``index`` in RGB.

        Raises:
            UnreadableError: if it cannot be decoded.
        """
        read = partial(self._decode, index)
        return self.room.picture(index, read) if self.room else read()

    def _decode(self, index: int) -> Image.Image:
        return decode.guarded(lambda: decode.to_rgb(self.read(index)), self.paths[index])

    def open_any(self, index: int) -> tuple[Image.Image, bool]:
        """The picture, or if it cannot be decoded the next readable one of its class, and which.

        Raises:
            DataError: if it is unreadable and the split ``strict``, or its whole class is.
        """
        try:
            return self.open(index), True
        except decode.UnreadableError:
            if self.strict:
                raise
        alike = (self.labels == self.labels[index]).nonzero()[:, 0]
        following = alike.roll(-int((alike == index).nonzero()) - 1)[: min(len(alike) - 1, TRIES)]
        for other in following.tolist():
            with contextlib.suppress(decode.UnreadableError):
                return self.open(other), False
        name = printable(self.paths[index])
        raise DataError(f"cannot read image '{name}', nor others of its class.")

    def note_unreadable(self, ids: Tensor) -> None:
        """Remembers images that :meth:`open_any` had to replace, each with a warning.

        Raises:
            DataError: if they are more than :data:`MOST_REPLACED` of the split, and than a few.
        """
        for index in set(ids.tolist()) - self.unreadable:
            self.unreadable.add(index)
            name = printable(self.paths[index])
            log.warning("cannot read image '%s', replaced by the next one", name)
        if too_many(len(self.unreadable), len(self), MOST_REPLACED):
            raise DataError(
                f"{len(self.unreadable)} of {len(self)} images cannot be read, more than "
                f"{MOST_REPLACED:.0%}, as '{short(self.paths[min(self.unreadable)])}'. "
                "Restore the data set."
            )

    @cached_property
    def stamps(self) -> list[Stamp]:
        """Device, number and size of each file; empty where the images are no files."""
        return stamps(self.paths) if self.files else []

    @cached_property
    def sizes(self) -> Sequence[int]:
        """Bytes of each image as it lies there; empty where that is not known."""
        return [size for _, _, size in self.stamps] if self.files else self.lengths

    def header(self, index: int) -> Size:
        """Width and height of one, read as far as its header, where a reader stops there.

        Raises:
            UnreadableError: if that cannot be read, or its mode is not known.
        """
        path = self.paths[index]
        read = partial(decode.header, path) if self.files else partial(self._look, index)
        size: Size = decode.guarded(read, path)
        return size

    def _look(self, index: int) -> Size:
        picture = self.read(index)
        decode.check_mode(picture.mode)
        return picture.size

    def sizes_within(self, most: int) -> list[Size] | None:
        """Width and height of each, nothing of a damaged one; None if decoded they exceed ``most``.

        No more headers are read than that takes.
        """
        found: list[Size] = []
        for index in range(len(self)):
            try:
                found.append(self.header(index))
            except decode.UnreadableError:
                found.append((0, 0))
            most -= 3 * found[-1][0] * found[-1][1]
            if most < 0:
                return None
        return found

    def bytes_of(self, index: int) -> bytes:
        """Bytes by which a copy is known: a file's from both ends, else all."""
        if self.files or self.raw is None:
            return piece(self.paths[index], self.sizes[index])
        return self.raw(index)

    def fingerprint(self) -> str:
        """Hash of the names, in order, and after a dot that of their content."""
        names = "\n".join(short(p, escaped=False) for p in self.paths)
        text = f"{len(self)}\n{names}".encode(errors="surrogateescape")
        return f"{hashlib.sha256(text).hexdigest()[:16]}.{self._content()}"

    def _content(self) -> str:
        if self.files:
            return content(self.paths, self.sizes)
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        for index in spread(len(self), PICTURES):
            picture, _ = self.open_any(index)
            digest.update(picture.tobytes())
        return digest.hexdigest()[:8]


def short(path: str, escaped: bool = True) -> str:
    """A file's name with its folder's, as records and fingerprints name it."""
    name = "/".join(Path(path).parts[-2:])
    return printable(name) if escaped else name


def too_many(count: int, of: int, share: float) -> bool:
    """Whether a count is above a share of a number, and above :data:`FEW`."""
    return count > max(FEW, share * of)


Split = ArraySplit | FileSplit

NO_LABEL = -1
"""The label of an image that has none."""


def joined(first: Split, second: Split) -> Split:
    """The images of one split, then those of another; each keeps count of what it left out.

    Raises:
        DataError: if they are not of one form.
    """
    labels = torch.cat([first.labels, second.labels])
    if isinstance(first, FileSplit) and isinstance(second, FileSplit):
        rooms = [split.room for split in (first, second) if split.room]
        return FileSplit(
            read=partial(_read_either, first, second),
            labels=labels,
            paths=[*first.paths, *second.paths],
            files=first.files and second.files,
            strict=first.strict,
            room=Room([*rooms[0].sizes, *rooms[1].sizes]) if len(rooms) == 2 else None,
        )
    if isinstance(first, ArraySplit) and isinstance(second, ArraySplit):
        forms = [tuple(split.images.shape[1:]) for split in (first, second)]
        if forms[0] == forms[1]:
            images = torch.cat([first.images, second.images])
            return ArraySplit(images, labels, first.from_files)
        raise DataError(f"the training images are {forms[0]}, the unlabelled ones {forms[1]}.")
    raise DataError("training and unlabelled images must both lie in memory, or neither.")


def _read_either(first: FileSplit, second: FileSplit, index: int) -> Image.Image:
    return first.read(index) if index < len(first) else second.read(index - len(first))


@dataclass(frozen=True)
class ImageSet:
    """A data set: training and test images with ``classes`` labels, perhaps ``unlabelled`` ones.

    Those carry :data:`NO_LABEL` and are for pre-training alone. ``found`` is what
    :mod:`bench.data.gate` found worth a note.
    """

    train: Split
    test: Split
    classes: int
    found: tuple[str, ...] = ()
    unlabelled: Split | None = None

    @cached_property
    def pretrain(self) -> Split:
        """The images that pre-train: the training images, then the unlabelled ones.

        Both, because pre-training reads no label and the labelled images are images too. They come
        first, so that a number names the same image here and in ``train``.
        """
        return self.train if self.unlabelled is None else joined(self.train, self.unlabelled)

    @property
    def parts(self) -> dict[str, Split]:
        """Its splits, by what their images are called."""
        parts = {"training": self.train, "test": self.test}
        return parts if self.unlabelled is None else {**parts, "unlabelled": self.unlabelled}

    def _of(self, train: Split, test: Split, unlabelled: Split | None = None) -> ImageSet:
        return replace(self, train=train, test=test, unlabelled=unlabelled)

    def fingerprint(self) -> str:
        """Identifies the images of all splits."""
        return "-".join(split.fingerprint() for split in self.parts.values())

    def strict(self) -> ImageSet:
        """The same images, an unreadable file being an error."""
        parts = self.parts.values()
        files = (replace(s, strict=True) if isinstance(s, FileSplit) else s for s in parts)
        return self._of(*files)

    def kept(self) -> ImageSet:
        """The same images; files that are small enough together are decoded once, then kept."""
        left = limit()
        parts: list[Split] = []
        for split in self.parts.values():
            if isinstance(split, FileSplit) and (split.files or split.packed) and len(split):
                sizes = split.sizes_within(left)
                if sizes is None:
                    return self
                room = Room(sizes)
                split, left = replace(split, room=room), left - room.ends[-1]
            parts.append(split)
        return self._of(*parts)

    def notes(self) -> list[str]:
        """What the record says of unlabelled images, files left out and unreadable ones."""
        found, splits = list(self.found), self.parts
        if self.unlabelled is not None:
            splits["pre-training"] = self.pretrain
            found.append(
                f"pre-training on the {len(self.train)} training images and {len(self.unlabelled)} "
                "unlabelled ones"
            )
        for name, split in splits.items():
            if isinstance(split, FileSplit) and split.unreadable:
                bad = [split.paths[i] for i in sorted(split.unreadable)]
                names = ", ".join(short(p) for p in bad[:5])
                more = " ..." if len(bad) > 5 else ""
                found.append(f"{len(bad)} unreadable {name} image(s) replaced: {names}{more}")
            if isinstance(split, FileSplit) and split.left_out:
                kinds = ", ".join(f"{n} {printable(k)}" for k, n in sorted(split.left_out.items()))
                found.append(f"{sum(split.left_out.values())} {name} file(s) left out: {kinds}")
        return found
