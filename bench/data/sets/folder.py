"""Folders in ImageNet's layout."""

from __future__ import annotations

from bench.data.folders import read_folder
from bench.data.images import ImageSet
from bench.plan.sections import DataConfig


def image_folder(config: DataConfig, root: str, size: int) -> ImageSet:
    """A folder in ImageNet's layout: ``train/CLASS/*`` and ``val/CLASS/*`` (or ``test``).

    Without a test part, ``data.holdout`` takes one from ``train/CLASS/*``, or from ``CLASS/*``.
    Images below ``unlabeled/`` pre-train together with those of ``train``.
    """
    return read_folder(root, config.holdout)
