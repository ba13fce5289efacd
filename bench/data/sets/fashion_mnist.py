"""Fashion-MNIST (arXiv 1708.07747): 28 x 28 grey images of ten kinds of clothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.images import ArraySplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the files."""

PARTS = {"train": "train", "test": "t10k"}
"""A split's name in the names of its files."""

INSIDE = ("", "FashionMNIST/raw", "raw")
"""Where the files lie in a folder: themselves, or as torchvision's download leaves them."""


def fashion_mnist(config: DataConfig, root: str, size: int) -> ImageSet:
    """Read from ``root``, or else from Debian's package where it is installed.

    ``data.train_images`` and ``data.test_images`` take that many of the 60,000 and 10,000, the
    first ones of each class, so that all seeds share them.

    Raises:
        DataError: if the files are missing or are not what they should be.
    """
    folder = _find(root)
    counts = {"train": config.train_images, "test": config.test_images}
    splits = [_split(folder, part, count) for part, count in counts.items()]
    return ImageSet(splits[0], splits[1], classes=10)


def _find(root: str) -> Path:
    """The folder that holds the four files."""
    for inside in INSIDE if root else ():
        if _file(Path(root) / inside, "train", "images-idx3"):
            return Path(root) / inside
    if not root and _file(DEBIAN, "train", "images-idx3"):
        return DEBIAN
    where = f"in '{root}'" if root else "on this machine"
    raise DataError(
        f"no Fashion-MNIST {where}. Give the folder of its idx files or of torchvision's download "
        "(--data fashion-mnist:DIR), or install Debian's package dataset-fashion-mnist."
    )


def _file(folder: Path, part: str, kind: str) -> Path | None:
    """A file of the data set, compressed or not, or None."""
    name = f"{PARTS[part]}-{kind}-ubyte"
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _split(folder: Path, part: str, count: int) -> ArraySplit:
    images = _idx(folder, part, "images-idx3", 3)
    labels = _idx(folder, part, "labels-idx1", 1).long()
    if len(images) != len(labels):
        raise DataError(f"'{folder}' holds {len(images)} {part} images, but {len(labels)} labels.")
    if count > len(labels):
        raise DataError(
            f"data.{part}_images={count} asks for more than the {len(labels)} images there are."
        )
    chosen = _first_of_each(labels, count)
    return ArraySplit(images[chosen][:, None], labels[chosen], from_files=True)


def _first_of_each(labels: Tensor, count: int) -> Tensor:
    """Indices of ``count`` images (0: all), as even over the classes as they can be."""
    if not count:
        return torch.arange(len(labels))
    seen: dict[int, int] = {}
    turns = []
    for label in labels.tolist():
        seen[label] = seen.get(label, 0) + 1
        turns.append(seen[label])
    return torch.tensor(turns).argsort(stable=True)[:count].sort().values


def _idx(folder: Path, part: str, kind: str, dims: int) -> Tensor:
    """An idx file (LeCun's format of bytes) as uint8.

    Raises:
        DataError: if it is missing, damaged or of another form.
    """
    path = _file(folder, part, kind)
    if path is None:
        raise DataError(f"'{folder}' lacks '{PARTS[part]}-{kind}-ubyte' (or its .gz).")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header = np.frombuffer(data, ">i4", count=1 + dims)
        values = np.frombuffer(data, np.uint8, offset=4 * (1 + dims))
        if header[0] != 0x0800 + dims:
            raise ValueError(f"magic number {header[0]:#x}")
        return torch.from_numpy(values.reshape(*header[1:]).copy())
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"'{path}' is no idx file of {dims} dimensions: {error}.") from error
