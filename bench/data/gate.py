"""What every image set must fulfil before numbers are made of it, whoever it comes from.

Run when a study is planned, by names, sizes and headers, and again in each run.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import torch
from torch import Tensor

from bench.data import decode
from bench.data.images import ArraySplit, FileSplit, ImageSet, Split, short, too_many
from bench.data.listing import spread
from bench.errors import DataError, printable
from bench.plan.config import RunConfig

HEADERS = 512
"""Files of a split whose headers are read."""

COMPARED = 512
"""Test images whose content is looked for among the training images."""

MOST_SHARED = 0.01
"""Share of them that may be there; a collection may hold a few twins (CIFAR does)."""

MOST_LEFT_OUT = 0.05
"""Share of a split's files that may be no images, or have no label."""


def check(images: ImageSet, config: RunConfig) -> list[str]:
    """Holds an image set to the rules; returns what a reader should know of it.

    Raises:
        DataError: naming the rule that is broken and what to do.
    """
    name = printable(config.data.name)
    _check_classes(images, name)
    _check_channels(images, config)
    notes = []
    for part, split in images.parts.items():
        if not len(split):
            raise DataError(f"the {part} split of '{name}' holds no images.")
        if split is not images.unlabelled:
            _check_labels(split, images.classes, f"the {part} split of '{name}'")
        if isinstance(split, FileSplit):
            _check_left_out(split, part, name)
            _check_headers(split, part, name)
    notes += _check_apart(images, images.train, "training", name)
    if images.unlabelled is not None:
        notes += _check_apart(images, images.unlabelled, "unlabelled", name)
        twice, looked = _twins(images.unlabelled, images.train)
        said = "are unlabelled ones too: pre-training sees them twice"
        notes += [f"{twice} of {looked} training images {said}"] if twice else []
    notes += _check_presence(images, name)
    return notes


def _check_classes(images: ImageSet, name: str) -> None:
    sides = [s.names if isinstance(s, FileSplit) else () for s in (images.train, images.test)]
    if sides[0] != sides[1]:
        only = [sorted(set(a) - set(b)) for a, b in (sides, sides[::-1])]
        found = [f"'{printable(n)}'" for n in (only[0] + only[1])[:3]] or ["their order"]
        raise DataError(
            f"the training and test splits of '{name}' hold different class folders: "
            f"{', '.join(found)}. Both need the same; an empty folder keeps a class's number."
        )
    if images.classes < 2:
        raise DataError(f"'{name}' has {images.classes} class; there is nothing to tell apart.")


def _check_channels(images: ImageSet, config: RunConfig) -> None:
    train = images.train
    channels = train.images.shape[1] if isinstance(train, ArraySplit) else 3
    if channels != config.model.channels:
        raise DataError(
            f"data set '{config.data.name}' has {channels} channels, the model "
            f"{config.model.channels}. Set model.channels={channels}."
        )


def _check_labels(split: Split, classes: int, where: str) -> None:
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{where} has labels from {low} to {high}, beyond its {classes} classes (0 to "
            f"{classes - 1}). Number its classes from 0."
        )


def _check_left_out(split: FileSplit, part: str, name: str) -> None:
    count = sum(split.left_out.values())
    if too_many(count, count + len(split), MOST_LEFT_OUT):
        kinds = ", ".join(f"{n} {printable(k)}" for k, n in sorted(split.left_out.items()))
        raise DataError(
            f"{count} of {count + len(split)} {part} files of '{name}' are left out "
            f"({kinds}), more than {MOST_LEFT_OUT:.0%}. Convert them, or take them out."
        )


def _check_headers(split: FileSplit, part: str, name: str) -> None:
    """Opens a sample of files as far as their headers; a few bad ones are the run's to count."""
    sample = spread(len(split), HEADERS)
    bad: list[decode.UnreadableError] = []
    for index in sample:
        try:
            split.header(index)
        except decode.UnreadableError as error:
            bad.append(error)
    if bad and split.strict:
        raise bad[0]
    if too_many(len(bad), len(sample), 0.05):
        raise DataError(
            f"{len(bad)} of {len(sample)} {part} files of '{name}' looked into are no pictures "
            f"that can be read; {bad[0]}. Restore the data set."
        )


def _check_apart(images: ImageSet, seen: Split, part: str, name: str) -> list[str]:
    """That no image is tested with that training or pre-training sees."""
    test = images.test
    own = "Give it a test split of its own." if seen is images.train else "Take them out there."
    if isinstance(seen, FileSplit) and isinstance(test, FileSplit):
        there = {stamp[:2] for stamp in seen.stamps}
        both = [p for p, s in zip(test.paths, test.stamps, strict=False) if s[:2] in there]
        if both:
            raise DataError(
                f"{len(both)} of {len(test)} test images of '{name}' are {part} images, as "
                f"'{short(both[0])}'. {own}"
            )
    twins, looked = _twins(seen, test)
    if too_many(twins, looked, MOST_SHARED):
        raise DataError(
            f"{twins} of {looked} test images of '{name}' are copies of {part} images, more "
            f"than {MOST_SHARED:.0%}. {own}"
        )
    return [f"{twins} of {looked} test images are copies of {part} images"] if twins else []


def _twins(seen: Split, looked: Split) -> tuple[int, int]:
    """How many of a sample of images have copies among those ``seen``, and the sample's size."""
    if isinstance(seen, FileSplit) and isinstance(looked, FileSplit):
        return _twin_files(seen, looked)
    if isinstance(seen, ArraySplit) and isinstance(looked, ArraySplit):
        return _twin_arrays(seen, looked)
    return 0, 0


def _twin_files(train: FileSplit, test: FileSplit) -> tuple[int, int]:
    """How many of a sample of the test images have a training image's bytes, and the sample."""
    if not (train.sizes and test.sizes):
        return 0, 0
    sample = spread(len(test), COMPARED)
    sizes, most = {test.sizes[i] for i in sample}, COMPARED if train.files else len(train)
    alike: dict[int, list[int]] = {}
    for index, size in enumerate(train.sizes):
        if size in sizes and len(alike.setdefault(size, [])) < most:
            alike[size].append(index)
    known = {size: {_sum(train, i) for i in found} for size, found in alike.items()}
    found = (_sum(test, i) in known.get(size, ()) for i in sample if (size := test.sizes[i]))
    return sum(found), len(sample)


def _sum(split: FileSplit, index: int) -> bytes:
    return hashlib.sha256(split.bytes_of(index)).digest()


def _twin_arrays(train: ArraySplit, test: ArraySplit) -> tuple[int, int]:
    if train.images.shape[1:] != test.images.shape[1:]:
        return 0, len(test)
    known = {row.numpy().tobytes() for row in train.images}
    sample = spread(len(test), COMPARED)
    return sum(test.images[i].numpy().tobytes() in known for i in sample), len(sample)


def _check_presence(images: ImageSet, name: str) -> list[str]:
    """That every class can be learnt; one that is not tested is worth a note."""
    counts = [Counter(split.labels.tolist()) for split in (images.train, images.test)]
    names = images.train.names if isinstance(images.train, FileSplit) else ()
    called = dict(enumerate(map(printable, names)))
    empty, untested = (
        [called.get(k, str(k)) for k in range(images.classes) if not c[k]] for c in counts
    )
    if empty:
        raise DataError(f"no training image of class '{empty[0]}' of '{name}'. Take it out.")
    if len(untested) == images.classes:
        raise DataError(f"the test split of '{name}' holds no images.")
    shown = ", ".join(untested[:5]) + " ..." * (len(untested) > 5)
    return [f"{len(untested)} class(es) without a test image: {shown}"] if untested else []


def check_budget(labels: Tensor, config: RunConfig) -> None:
    """That evaluation finds as many labels as it asks for, and no batch norm meets one image.

    Raises:
        DataError: naming the setting.
    """
    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    wanted, classes = config.data.labels, len(counts)
    if wanted:
        each = wanted // classes
        nearest = max(1, round(wanted / classes)) * classes
        if wanted % classes:
            raise DataError(
                f"data.labels={wanted} cannot be shared by {classes} classes alike; {nearest} can."
            )
        if each > int(counts.min()):
            raise DataError(
                f"data.labels={wanted} needs {each} images of every class; the smallest has "
                f"{int(counts.min())}: at most {int(counts.min()) * classes}."
            )
    for name, recipe in config.tasks:
        if getattr(recipe, "BATCH_NORM", False):
            _check_last_batch(name, recipe.batch_size, wanted or len(labels))


def _check_last_batch(task: str, batch_size: int, count: int) -> None:
    size = min(batch_size, count)
    if size == 1 or count % size == 1:
        raise DataError(
            f"{task}.batch_size={batch_size} leaves one of {count} images to the last "
            f"batch, which its batch norm cannot take. Set {task}.batch_size={size + 1}."
        )
