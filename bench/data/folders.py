"""Folders of pictures, a sub-folder a class: from their listing to an image set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from bench.data.decode import open_file
from bench.data.images import FileSplit, ImageSet
from bench.data.listing import Listing, list_images
from bench.errors import DataError


def read_folder(root: str) -> ImageSet:
    """The images of ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``).

    Raises:
        DataError: if there are no such folders.
    """
    parts = [_subfolder(root, ("train",)), _subfolder(root, ("val", "validation", "test"))]
    train, test = (_split(list_images(part)) for part in parts)
    return ImageSet(train, test, len(train.names))


def _split(found: Listing) -> FileSplit:
    return FileSplit(
        read=partial(_read, found.paths),
        labels=torch.tensor(found.labels, dtype=torch.long),
        paths=found.paths,
        names=found.names,
        left_out=found.left_out,
    )


def _read(paths: Sequence[str], index: int) -> Image.Image:
    return open_file(paths[index])


def _subfolder(root: str, names: Sequence[str]) -> Path:
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    wanted = " or ".join(f"'{n}/'" for n in names)
    raise DataError(
        f"'{root}' has no folder {wanted}. Expected ImageNet's layout: train/CLASS/*.jpg and "
        "val/CLASS/*.jpg."
    )
