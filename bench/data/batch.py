"""What a feed is made of and gives: its settings, its batches.

B images, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from bench.machine.world import SOLO, World
from bench.plan.sections import AugmentConfig, DataConfig
from bench.streams import Streams


@dataclass(frozen=True)
class Step:
    """One batch: ``ids`` [B] number the images in the training set; ``boxes`` [B, 5] their crops.

    A box is (top, left, height, width, flipped) as fractions of the image. Of several processes
    each sees its own images: ``places`` [B] are their places in the batch of ``count``.
    ``waited_s`` is how long the loader kept the step waiting; nothing where images are in memory.
    """

    ids: Tensor
    images: Tensor
    labels: Tensor
    boxes: Tensor
    places: Tensor
    count: int
    waited_s: float = 0.0


def repeated(step: Step, each: int) -> Step:
    """A step in which every image stands so many times in turn."""
    if each == 1:
        return step
    places = step.places * each
    return replace(
        step,
        **{
            k: getattr(step, k).repeat_interleave(each, 0)
            for k in ("ids", "images", "labels", "boxes")
        },
        places=torch.stack([places + k for k in range(each)], dim=1).flatten(),
        count=step.count * each,
    )


class Feed(Protocol):
    """Batches of one stage."""

    steps: int

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of an epoch, from step ``first`` on."""
        ...


@dataclass(frozen=True)
class FeedConfig:
    """What a feed needs besides the images: sizes, augmentation, streams and where to put them.

    Groups of ``together`` images go to one process (:meth:`World.places`).
    """

    data: DataConfig
    augment: AugmentConfig
    image_size: int
    batch_size: int
    drop_last: bool
    streams: Streams
    purpose: str
    device: torch.device
    workers: int = 0
    world: World = SOLO
    together: int = 1


def normalise(images: Tensor, config: DataConfig) -> Tensor:
    """Bytes to normalised float32, channel-wise, [..., C, S, S]."""
    mean, std = _levels(config.mean, images.device), _levels(config.std, images.device)
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _levels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Shares of full brightness as levels of a byte, [C, 1, 1]; kept, as the copy halts a GPU."""
    return torch.tensor(values, device=device)[:, None, None] * 255
