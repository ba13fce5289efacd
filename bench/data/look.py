"""What can be said of a data set before a recipe is chosen for it: counts, sizes, mean and sd."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.data import decode
from bench.data.images import ArraySplit, ImageSet, Split
from bench.data.listing import spread
from bench.errors import DataError
from bench.plan.sized import Facts

SIZED, MEASURED = 256, 128
"""Images that pre-train whose size is read, whose values are measured; always the same ones."""

GREY = frozenset({"1", "L", "LA", "La", "I", "F"})
"""Modes of pictures without colour; those of 16 bits begin with one of them."""

CANVAS = 128
"""Pixels to which a picture is reduced before its values are measured."""


def look(images: ImageSet, name: str) -> Facts:
    """The facts by which a recipe is sized; ``name`` is the data set's.

    Raises:
        DataError: if it holds no training image, or none that can be read.
    """
    if not len(images.train):
        raise DataError(f"the training split of '{name}' holds no images.")
    counts = torch.bincount(images.train.labels, minlength=images.classes)
    modes, sides = _headers(images.pretrain)
    if not sides:
        raise DataError(f"no training image of '{name}' that was looked into can be read.")
    mean, std = _values(images.pretrain)
    return Facts(
        name=name,
        counts=tuple(counts.tolist()),
        tests=len(images.test),
        unlabelled=0 if images.unlabelled is None else len(images.unlabelled),
        side=round(median(sides)),
        mean=mean,
        std=std,
        grey=all(mode.partition(";")[0] in GREY for mode in modes),
    )


def _headers(split: Split) -> tuple[set[str], list[int]]:
    """Modes and shorter sides of some images; those that cannot be read are left out."""
    if isinstance(split, ArraySplit):
        _, channels, *size = split.images.shape
        return {"L" if channels == 1 else "RGB"}, [min(size)]
    modes, sides = set(), []
    for index in spread(len(split), SIZED):
        try:
            mode, size = decode.guarded(partial(_header, split, index), split.paths[index])
        except decode.UnreadableError:
            continue
        modes.add(mode)
        sides.append(min(size))
    return modes, sides


def _header(split: Any, index: int) -> tuple[str, tuple[int, int]]:
    """Mode and size; of a file as its header states them."""
    if not split.files:
        picture = split.read(index)
        return picture.mode, picture.size
    with open(split.paths[index], "rb") as file, Image.open(file) as stated:
        return stated.mode, stated.size


def _values(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel over some images, in [0, 1]."""
    sums: list[Any] = []
    for index in spread(len(split), MEASURED):
        picture, _ = split.open_any(index)
        picture.thumbnail((CANVAS, CANVAS))
        pixels = np.asarray(picture, dtype=np.float64).reshape(picture.height * picture.width, -1)
        sums.append(np.stack([pixels.mean(0), (pixels**2).mean(0)]) / [[255.0], [255.0**2]])
    mean, square = np.mean(sums, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0.01**2))
    return tuple(mean.round(3).tolist()), tuple(std.round(3).tolist())
