"""A data set: NumPy arrays in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.data.images import ArraySplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig


def arrays(config: DataConfig, root: str, size: int) -> ImageSet:
    """``train_images.npy`` and ``test_images.npy``, uint8 [n, C, S, S], with ``*_labels.npy``.

    Raises:
        DataError: if a file is missing or no array of this form.
    """
    train, test = (_split(Path(root), name) for name in ("train", "test"))
    return ImageSet(train, test, classes=int(train.labels.max()) + 1)


def _split(root: Path, name: str) -> ArraySplit:
    try:
        images, labels = (np.load(root / f"{name}_{part}.npy") for part in ("images", "labels"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{root}' has no arrays of {name} images and labels: {error}") from error
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels):
        raise DataError(f"'{root}': {name}_images.npy must be uint8 [n, C, S, S], one label each.")
    return ArraySplit(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
