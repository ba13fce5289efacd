"""Folders of pictures, a sub-folder a class: from their listing to an image set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from bench.data.decode import open_file
from bench.data.holdout import ADVICE, check_share, held_out
from bench.data.images import NO_LABEL, FileSplit, ImageSet
from bench.data.listing import Listing, about_shards, list_images, list_unlabelled
from bench.errors import DataError

TEST = ("val", "validation", "test")
"""Names of the folder that tests: the first of these that there is."""

UNLABELLED = ("unlabeled", "unlabelled")
"""Names of the folder of images without labels, which pre-train together with the others."""


def read_folder(root: str, holdout: float = 0.0) -> ImageSet:
    """The images of ``train/CLASS/*`` and ``val/CLASS/*`` (or ``validation``, ``test``).

    With ``holdout``, that share of each class of ``train/CLASS/*``, or of ``CLASS/*``, tests; the
    choice depends on nothing else. Beside them ``unlabeled/**`` may hold images for pre-training.

    Raises:
        DataError: if there are no such folders, or a test part and ``holdout``.
    """
    train, test = _subfolder(root, ("train",)), _subfolder(root, TEST)
    check_share(holdout, f"{test.name}/" if test else "")
    if holdout:
        found = list_images(train) if train else list_images(Path(root), but=UNLABELLED)
        parts = _apart(found, holdout)
    elif train is None or test is None:
        raise _another_layout(root, train, test)
    else:
        parts = list_images(train), list_images(test)
    folder = _subfolder(root, UNLABELLED)
    more = None if folder is None else _split(list_unlabelled(folder, NO_LABEL))
    train_split, test_split = map(_split, parts)
    return ImageSet(train_split, test_split, len(parts[0].names), unlabelled=more)


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
    advice = "" if test else f" {ADVICE.removesuffix('.')} to --data folder:DIR."
    return DataError(
        f"'{root}' has no folder {wanted}. Expected ImageNet's layout: train/CLASS/*.jpg and "
        f"val/CLASS/*.jpg.{about_shards(Path(root)) or advice}"
    )
