"""CIFAR-10 and CIFAR-100 from local copies."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.data.images import ArraySplit, ImageSet
from bench.errors import DataError
from bench.plan.sections import DataConfig


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
            torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(p.targets),
            from_files=True,
        )
        for p in parts
    ]
    return ImageSet(splits[0], splits[1], classes)
