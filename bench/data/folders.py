"""Folders of pictures, a sub-folder a class: from their listing to an image set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench.data.decode import open_file
from bench.data.images import FileSplit, ImageSet
from bench.data.listing import Listing, about_shards, list_images
from bench.errors import DataError
from bench.streams import Streams

TEST = ("val", "validation", "test")
"""Names of the folder that tests: the first of these that there is."""


def read_folder(root: str, holdout: float = 0.0) -> ImageSet:
    """The images of ``train/CLASS/*`` and ``val/CLASS/*`` (or ``validation``, ``test``).

    With ``holdout``, that share of each class of ``train/CLASS/*``, or of ``CLASS/*``, tests; the
    choice depends on nothing else.

    Raises:
        DataError: if there are no such folders, or a test part and ``holdout``.
    """
    train, test = _subfolder(root, ("train",)), _subfolder(root, TEST)
    if test is not None and holdout:
        raise DataError(
            f"data.holdout={holdout:g} would be ignored: '{root}' has the test part "
            f"'{test.name}/'. Set data.holdout=0, or take that folder away."
        )
    if holdout:
        parts = _apart(list_images(train or Path(root)), holdout)
    elif train is None or test is None:
        raise _another_layout(root, train, test)
    else:
        parts = list_images(train), list_images(test)
    return ImageSet(_split(parts[0]), _split(parts[1]), len(parts[0].names))


def _apart(found: Listing, holdout: float) -> tuple[Listing, Listing]:
    """The images that train, with the files left out, and those held out."""
    chosen = held_out(torch.tensor(found.labels, dtype=torch.long), holdout)
    sides = [
        replace(
            found,
            paths=tuple(p for p, out in zip(found.paths, chosen, strict=True) if out == side),
            labels=tuple(k for k, out in zip(found.labels, chosen, strict=True) if out == side),
        )
        for side in (False, True)
    ]
    return sides[0], replace(sides[1], left_out={})


def held_out(labels: Tensor, share: float) -> list[bool]:
    """Which images test: the share of each class, at least one and not all, the same every time."""
    ranks = Streams(0, 0).samples("holdout", 0, torch.arange(len(labels))).bits(1)[:, 0]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for k in labels.unique():
        members = (labels == k).nonzero()[:, 0]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[ranks[members].argsort(stable=True)[:count]]] = True
    found: list[bool] = chosen.tolist()
    return found


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


def _subfolder(root: str, names: Sequence[str]) -> Path | None:
    return next((p for n in names if (p := Path(root) / n).is_dir()), None)


def _another_layout(root: str, train: Path | None, test: Path | None) -> DataError:
    names = ("train",) if train is None else TEST
    wanted = " or ".join(f"'{n}/'" for n in names)
    advice = "" if test else " Without a test part, add data.holdout=0.2: a fifth of each class."
    return DataError(
        f"'{root}' has no folder {wanted}. Expected ImageNet's layout: train/CLASS/*.jpg and "
        f"val/CLASS/*.jpg.{about_shards(Path(root)) or advice}"
    )
