"""Folders in ImageNet's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.data.images import FileSplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig


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
