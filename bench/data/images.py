"""Data sets by name: each returns an :class:`ImageSet` with a train and a test split.

Small sets are held in memory as bytes [n, C, S, S]; folders are decoded image by image.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.errors import DataError
from bench.plan.sections import DataConfig

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


def digits(config: DataConfig, root: str, size: int) -> ImageSet:
    """scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, ten classes.

    ``data.train_images`` of them train (default 1,024) and the rest tests, a fixed stratified
    split; ships with scikit-learn.

    Raises:
        DataError: if too few images are left for a test.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * 15.9375).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    everything = np.arange(len(labels))
    count = config.train_images or 1024
    if not 10 <= count <= len(labels) - 10:
        raise DataError(f"data.train_images={count} of 1,797 images leaves too few on one side.")
    train, test = train_test_split(
        everything, train_size=count, stratify=bunch.target, random_state=0
    )
    return ImageSet(
        ArraySplit(images[np.sort(train)], labels[np.sort(train)]),
        ArraySplit(images[np.sort(test)], labels[np.sort(test)]),
        classes=10,
    )


def procedural(config: DataConfig, root: str, size: int) -> ImageSet:
    """Coloured textures and shapes of any resolution, generated from a fixed seed.

    A class is an orientation, a spatial frequency and a shape; colour, phase, place, size and
    noise vary from image to image. ``data.train_images``, ``data.test_images`` and
    ``data.classes`` set the sizes (defaults 2,048, 1,024 and 16).
    """
    classes = config.classes or 16
    counts = (config.train_images or 2048, config.test_images or 1024)
    channels = len(config.mean)
    splits = [
        _procedural_split(np.random.default_rng([20240408, part]), n, classes, (channels, size))
        for part, n in enumerate(counts)
    ]
    return ImageSet(splits[0], splits[1], classes)


def _procedural_split(
    rng: np.random.Generator, count: int, classes: int, form: tuple[int, int]
) -> ArraySplit:
    labels = np.arange(count) % classes
    images = np.stack([_procedural_image(rng, int(k), form) for k in labels])
    return ArraySplit(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _procedural_image(
    rng: np.random.Generator, label: int, form: tuple[int, int]
) -> np.ndarray[Any, Any]:
    channels, size = form
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = np.pi * (label % 4) / 4 + rng.normal(0, 0.12)
    frequency = (2.0, 4.0)[label // 4 % 2] * rng.uniform(0.85, 1.15)
    wave = np.sin(2 * np.pi * (frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform()))
    cx, cy, radius = *rng.uniform(-0.2, 0.2, 2), rng.uniform(0.15, 0.28)
    round_ = np.hypot(x - cx, y - cy) < radius
    square = np.maximum(abs(x - cx), abs(y - cy)) < radius * 0.886
    inside = (round_ if label // 8 % 2 else square)[..., None]
    ground, shape = rng.uniform(0.1, 0.9, (2, channels))
    image = ground + 0.25 * wave[..., None] * rng.uniform(0.5, 1.0, channels)
    image = np.where(inside, shape + 0.05 * wave[..., None], image)
    image = image + rng.normal(0, 0.05, image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)


def cifar10(config: DataConfig, root: str, size: int) -> ImageSet:
    """CIFAR-10 from a local copy of ``cifar-10-batches-py`` (or the folder that holds it)."""
    return _cifar("CIFAR10", "cifar-10-batches-py", root, 10)


def cifar100(config: DataConfig, root: str, size: int) -> ImageSet:
    """CIFAR-100 from a local copy of ``cifar-100-python`` (or the folder that holds it)."""
    return _cifar("CIFAR100", "cifar-100-python", root, 100)


def _cifar(name: str, folder: str, root: str, classes: int) -> ImageSet:
    import torchvision

    base = Path(root).parent if Path(root).name == folder else Path(root)
    try:
        parts = [
            getattr(torchvision.datasets, name)(str(base), train=train) for train in (True, False)
        ]
    except RuntimeError as error:
        raise DataError(f"no {name} in '{root}': expected the folder '{folder}' in it.") from error
    splits = [
        ArraySplit(
            torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)
        )
        for p in parts
    ]
    return ImageSet(splits[0], splits[1], classes)


def image_folder(config: DataConfig, root: str, size: int) -> ImageSet:
    """A folder in ImageNet's layout: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``)."""
    from torchvision.datasets import ImageFolder

    parts = [_subfolder(root, ("train",)), _subfolder(root, ("val", "validation", "test"))]
    try:
        train, test = (ImageFolder(str(p)) for p in parts)
    except FileNotFoundError as error:
        raise DataError(f"no images under '{root}': {error}.") from error
    if train.classes != test.classes:
        raise DataError(f"'{parts[0]}' and '{parts[1]}' hold different class folders.")
    splits = [
        FileSplit(s, torch.tensor(s.targets), [path for path, _ in s.samples])
        for s in (train, test)
    ]
    return ImageSet(splits[0], splits[1], len(train.classes))


def _subfolder(root: str, names: Sequence[str]) -> Path:
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    wanted = " or ".join(f"'{n}/'" for n in names)
    raise DataError(
        f"'{root}' has no folder {wanted}. Expected ImageNet's layout: train/CLASS/*.jpg and "
        "val/CLASS/*.jpg."
    )


def timm_factory(config: DataConfig, root: str, size: int) -> ImageSet:
    """Any map-style data set of timm's factory, named as timm names it (``torch/cifar10``)."""
    from timm.data import create_dataset

    parts = []
    for split in ("train", "validation"):
        try:
            source = create_dataset(config.name, root=root, split=split, download=False)
        except Exception as error:
            raise DataError(f"timm cannot open '{config.name}' in '{root}': {error}") from error
        parts.append(_timm_split(source))
    return ImageSet(parts[0], parts[1], int(parts[0].labels.max()) + 1)


def _timm_split(source: Any) -> FileSplit:
    targets = getattr(source, "targets", None)
    if targets is None and hasattr(source, "reader"):
        targets = [label for _, label in source.reader.samples]
        paths = [str(path) for path, _ in source.reader.samples]
    else:
        paths = [str(i) for i in range(len(source))]
    if targets is None:
        targets = [source[i][1] for i in range(len(source))]
    return FileSplit(source, torch.as_tensor(targets), paths)
