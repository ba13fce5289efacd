"""Image sets: a train and a test split, held in memory or decoded image by image.

Images in memory are bytes [n, C, S, S].
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from bench.errors import DataError

log = logging.getLogger(__name__)

TRIES = 100
"""Images of a class tried in place of an unreadable one."""


@dataclass(frozen=True)
class ArraySplit:
    """Images in memory: ``images`` uint8 [n, C, S, S], ``labels`` int64 [n]."""

    images: Tensor
    labels: Tensor

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
        """Hash of all bytes."""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class FileSplit:
    """Images decoded on demand: ``source[i]`` gives a picture and its label.

    ``unreadable`` collects the numbers of files met that could not be decoded.
    """

    source: Any
    labels: Tensor
    paths: Sequence[str]
    strict: bool = False
    unreadable: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Image number ``index`` in RGB.

        Raises:
            OSError: if the file cannot be decoded.
        """
        picture: Image.Image = self.source[index][0]
        return picture.convert("RGB")

    def open_any(self, index: int) -> tuple[Image.Image, bool]:
        """The picture, or if it cannot be decoded the next readable one of its class, and which.

        Raises:
            DataError: if it is unreadable and the split ``strict``, or its whole class is.
        """
        try:
            return self.open(index), True
        except (OSError, ValueError, SyntaxError) as error:
            if self.strict:
                raise DataError(f"cannot read image '{self.paths[index]}': {error}") from error
        alike = (self.labels == self.labels[index]).nonzero()[:, 0]
        following = alike.roll(-int((alike == index).nonzero()) - 1)[: min(len(alike) - 1, TRIES)]
        for other in following.tolist():
            try:
                return self.open(other), False
            except (OSError, ValueError, SyntaxError):
                continue
        raise DataError(f"cannot read image '{self.paths[index]}', nor others of its class.")

    def note_unreadable(self, ids: Tensor) -> None:
        """Remembers files that :meth:`open_any` had to replace, each with a warning."""
        for index in set(ids.tolist()) - self.unreadable:
            self.unreadable.add(index)
            log.warning("cannot read image '%s', replaced by the next one", self.paths[index])

    def fingerprint(self) -> str:
        """Hash of the file names, in order."""
        names = "\n".join("/".join(Path(p).parts[-2:]) for p in self.paths)
        return hashlib.sha256(f"{len(self)}\n{names}".encode()).hexdigest()[:16]


Split = ArraySplit | FileSplit


@dataclass(frozen=True)
class ImageSet:
    """A data set: training and test images with ``classes`` labels."""

    train: Split
    test: Split
    classes: int

    def fingerprint(self) -> str:
        """Identifies the images of both splits."""
        return f"{self.train.fingerprint()}-{self.test.fingerprint()}"

    def strict(self) -> ImageSet:
        """The same images, an unreadable file being an error."""
        parts = [
            replace(s, strict=True) if isinstance(s, FileSplit) else s
            for s in (self.train, self.test)
        ]
        return ImageSet(parts[0], parts[1], self.classes)

    def notes(self) -> list[str]:
        """What the record says of unreadable files; names without their folder."""
        found = []
        for name, split in (("training", self.train), ("test", self.test)):
            if isinstance(split, FileSplit) and split.unreadable:
                bad = [split.paths[i] for i in sorted(split.unreadable)]
                names = ", ".join("/".join(Path(p).parts[-2:]) for p in bad[:5])
                more = " ..." if len(bad) > 5 else ""
                found.append(f"{len(bad)} unreadable {name} image(s) replaced: {names}{more}")
        return found
