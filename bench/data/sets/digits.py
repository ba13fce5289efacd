"""scikit-learn's handwritten digits."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.data.images import ArraySplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig


def digits(config: DataConfig, root: str, size: int) -> ImageSet:
    """scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, ten classes.

    ``data.train_images`` of them train (default 1,024) and the rest tests, a fixed stratified
    split; ships with scikit-learn.

    Raises:
        DataError: if too few images are left for a test.
    """
    from sklearn.model_selection import train_test_split

    images, labels = _all()
    everything = np.arange(len(labels))
    count = config.train_images or 1024
    if not 10 <= count <= len(labels) - 10:
        raise DataError(f"data.train_images={count} of 1,797 images leaves too few on one side.")
    train, test = train_test_split(
        everything, train_size=count, stratify=labels.numpy(), random_state=0
    )
    return ImageSet(
        ArraySplit(images[np.sort(train)], labels[np.sort(train)]),
        ArraySplit(images[np.sort(test)], labels[np.sort(test)]),
        classes=10,
    )


@cache  # the file is text, slow to parse; a process may load it for many runs
def _all() -> tuple[Tensor, Tensor]:
    """Images ``[1797, 1, 8, 8]`` in bytes, and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * 15.9375).astype(np.uint8))[:, None]
    return images, torch.from_numpy(bunch.target.astype(np.int64))
