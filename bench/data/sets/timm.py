"""torchvision's data sets, by the names of timm's factory."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.data.decode import open_file
from bench.data.folders import read_folder
from bench.data.images import FileSplit, ImageSet
from bench.errors import DataError, printable
from bench.plan.sections import DataConfig

FOLDERS = ("torch/image_folder", "torch/folder")
"""Names of a plain folder of classes."""


def timm_factory(config: DataConfig, root: str, size: int) -> ImageSet:
    """Any of torchvision's data sets in timm's factory, as timm names it (``torch/cifar10``).

    Its plain folders are read as ours: timm's fall back on the training images for a test.
    """
    if config.name.lower() in FOLDERS:
        return read_folder(root)
    from timm.data import create_dataset

    parts = []
    for split in ("train", "validation"):
        try:
            source = create_dataset(config.name, root=root, split=split, download=False)
        except Exception as error:  # whatever a library's reader makes of a wrong folder
            text = printable(f"{type(error).__name__}: {error}")
            raise DataError(f"timm cannot open '{config.name}' in '{root}': {text}") from error
        parts.append(_split(source, config.name))
    return ImageSet(parts[0], parts[1], len(parts[0].names) or int(parts[0].labels.max()) + 1)


def _split(source: Any, name: str) -> FileSplit:
    if hasattr(source, "loader"):
        source.loader = open_file  # torchvision's own cuts 16-bit pictures at 255
    samples: Any = getattr(source, "samples", None) or ()
    files = bool(samples) and isinstance(samples[0][0], str)
    paths = [str(s[0]) for s in samples] if files else [str(i) for i in range(len(source))]
    return FileSplit(
        read=partial(_read, source),
        labels=_labels(source, name),
        paths=paths,
        files=files,
        raw=partial(_raw, source),
        lengths=[] if files else _lengths(source),
        names=_names(source),
    )


def _lengths(source: Any) -> list[int]:
    """Bytes of each image, where the data set holds them in memory."""
    data = getattr(source, "data", None)
    held = data is not None and len(data) == len(source) > 0
    return [len(_raw(source, 0))] * len(source) if held else []


def _raw(source: Any, index: int) -> bytes:
    """Bytes of an image that a data set holds in memory."""
    return np.asarray(source.data[index]).tobytes()


def _read(source: Any, index: int) -> Image.Image:
    return source[index][0]


def _labels(source: Any, name: str) -> torch.Tensor:
    """Class numbers of all items.

    Raises:
        DataError: if they are anything else.
    """
    targets = getattr(source, "targets", None)
    if targets is None:
        targets = [source[i][1] for i in range(len(source))]
    labels = np.asarray(targets)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"'{name}' has labels that are no class numbers, as {targets[0]!r}.")
    return torch.from_numpy(labels.astype(np.int64))


def _names(source: Any) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers, where they are known."""
    return tuple(str(c) for c in getattr(source, "classes", None) or ())
