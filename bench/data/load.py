"""The images of a run, and the part whose labels evaluation may use."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench import registry
from bench.data import gate
from bench.data.images import ImageSet, Split
from bench.errors import DataError
from bench.plan.config import RunConfig
from bench.streams import Streams


def load(config: RunConfig, root: str, strict: bool = False) -> ImageSet:
    """The image set of a run, held to :mod:`bench.data.gate`.

    With ``strict`` an unreadable picture is an error.

    Raises:
        DataError: if it is missing or unreadable, or does not fit the model.
    """
    images: ImageSet = registry.load(registry.dataset(config.data.name).target)(
        config.data, root, config.model.image_size
    )
    if strict:
        images = images.strict()
    return replace(images, found=tuple(gate.check(images, config)))


def labelled_subset(split: Split, count: int, streams: Streams, draw: int = 0) -> Tensor:
    """Indices of ``count`` training images, balanced over classes, drawn per seed; all for 0.

    Each ``draw`` is another choice, independent of the rest.

    Raises:
        DataError: if the classes hold too few images.
    """
    if not count:
        return torch.arange(len(split))
    ranks = streams.samples("labels", draw, torch.arange(len(split))).uniform(1)[:, 0]
    classes = split.labels.unique()
    each = count // len(classes)
    chosen = []
    for k in classes:
        members = (split.labels == k).nonzero()[:, 0]
        if not 0 < each <= len(members):
            raise DataError(f"data.labels={count} needs {each} images of class {int(k)}.")
        chosen.append(members[ranks[members].argsort(stable=True)[:each]])
    return torch.cat(chosen).sort().values
