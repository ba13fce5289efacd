"""Arrays in one NumPy file: ``npz:FILE``, as MedMNIST (arXiv 2110.14795) and Keras name them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.holdout import ADVICE, check_share, held_out
from bench.data.images import NO_LABEL, ArraySplit, ImageSet
from bench.errors import DataError, printable, shown
from bench.plan.sections import DataConfig

TRAIN = (("train_images", "train_labels"), ("x_train", "y_train"))
TEST = (("test_images", "test_labels"), ("x_test", "y_test"), ("val_images", "val_labels"))
"""Names of a part's images and labels; the first pair that there is. MedMNIST's test part tests."""

UNLABELLED = ("unlabeled_images", "unlabelled_images", "x_unlabeled", "x_unlabelled")
"""Names of images without labels, which pre-train together with the training images."""


def npz(config: DataConfig, root: str, size: int) -> ImageSet:
    """Images uint8 [n, S, S] or [n, S, S, 3] (or 1) and labels, integers [n] or [n, 1].

    ``unlabeled_images`` (or ``x_unlabeled``), of the same size, pre-train together with these.
    A file without a test part needs ``data.holdout``, the share of each class that tests.

    Raises:
        DataError: for a file that is none of NumPy's, or holds other arrays.
    """
    arrays = _open(root)
    train, test = _pair(arrays, TRAIN), _pair(arrays, TEST)
    if train is None:
        raise DataError(
            f"'{shown(root, 200)}' holds {_listed(arrays)}; needed are {_named(TRAIN)}."
        )
    check_share(config.holdout, test[0] if test else "")
    if test is not None:
        parts = _split(arrays, train), _split(arrays, test)
    elif config.holdout:
        parts = _apart(_split(arrays, train), config.holdout)
    else:
        raise DataError(f"'{shown(root, 200)}' has no test part ({_named(TEST)}). {ADVICE}")
    labels = torch.cat([part.labels for part in parts])
    classes = int(labels.max()) + 1 if len(labels) else 0
    return ImageSet(*parts, classes, unlabelled=_unlabelled(arrays))


def _open(path: str) -> Mapping[str, Any]:
    wanted = {name for names in (*TRAIN, *TEST, UNLABELLED) for name in names}
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            return {name: found[name] if name in wanted else None for name in found.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        text = printable(str(error))[:200]
        raise DataError(f"'{shown(path, 200)}' cannot be read as .npz: {text}.") from error


def _pair(arrays: Mapping[str, Any], names: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    return next((pair for pair in names if all(name in arrays for name in pair)), None)


def _split(arrays: Mapping[str, Any], names: tuple[str, str]) -> ArraySplit:
    images, labels = (arrays[name] for name in names)
    return ArraySplit(_images(images, names[0]), _labels(labels, len(images), names[1]), True)


def _unlabelled(arrays: Mapping[str, Any]) -> ArraySplit | None:
    name = next((name for name in UNLABELLED if name in arrays), None)
    if name is None:
        return None
    images = _images(arrays[name], name)
    return ArraySplit(images, torch.full((len(images),), NO_LABEL), True)


def _images(array: Any, name: str) -> Tensor:
    """Images of any of the forms as [n, C, S, S]."""
    if array.dtype != np.uint8:
        raise DataError(f"'{name}' is {array.dtype}; needed is uint8, 0 to 255.")
    grey = array[..., None] if array.ndim == 3 else array
    if grey.ndim != 4 or grey.shape[3] not in (1, 3) or grey.shape[1] != grey.shape[2]:
        raise DataError(
            f"'{name}' has the shape {array.shape}; needed is (n, S, S) or (n, S, S, 3)."
        )
    return torch.from_numpy(np.ascontiguousarray(grey.transpose(0, 3, 1, 2)))


def _labels(array: Any, count: int, name: str) -> Tensor:
    """One class number an image, [n]."""
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.shape != (count,) or flat.dtype.kind not in "iu":
        raise DataError(
            f"'{name}' has the shape {array.shape} of {array.dtype}; needed is one integer for "
            f"each of {count} images. Several labels an image are not supported."
        )
    return torch.from_numpy(flat.astype(np.int64))


def _apart(whole: ArraySplit, share: float) -> tuple[ArraySplit, ArraySplit]:
    chosen = torch.tensor(held_out(whole.labels, share))
    train, test = (ArraySplit(whole.images[at], whole.labels[at], True) for at in (~chosen, chosen))
    return train, test


def _named(names: tuple[tuple[str, str], ...]) -> str:
    return " or ".join(" with ".join(pair) for pair in names)


def _listed(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"'{shown(name)}'" for name in list(arrays)[:10]) or "no arrays"
