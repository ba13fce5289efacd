"""Data sets of timm's factory."""

from __future__ import annotations

from typing import Any

import torch

from bench.data.images import FileSplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig


def timm_factory(config: DataConfig, root: str, size: int) -> ImageSet:
    """Any map-style data set of timm's factory, named as timm names it (``torch/cifar10``)."""
    from timm.data import create_dataset

    parts = []
    for split in ("train", "validation"):
        try:
            source = create_dataset(config.name, root=root, split=split, download=False)
        except Exception as error:
            raise DataError(f"timm cannot open '{config.name}' in '{root}': {error}") from error
        parts.append(_split(source))
    return ImageSet(parts[0], parts[1], int(parts[0].labels.max()) + 1)


def _split(source: Any) -> FileSplit:
    targets = getattr(source, "targets", None)
    if targets is None and hasattr(source, "reader"):
        targets = [label for _, label in source.reader.samples]
        paths = [str(path) for path, _ in source.reader.samples]
    else:
        paths = [str(i) for i in range(len(source))]
    if targets is None:
        targets = [source[i][1] for i in range(len(source))]
    return FileSplit(source, torch.as_tensor(targets), paths)
