"""Feeds: batches in an order drawn from counter-based streams.

Two feeds give the same batches in the same order: :class:`ArrayFeed` crops whole batches of
in-memory images on the device, :class:`FileFeed` decodes pictures in worker processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.data.augment import augmented, centred, is_plain
from bench.data.batch import Feed, FeedConfig, Step, normalise
from bench.data.crops import crop, crop_boxes
from bench.data.decoder import Decoded, Decoder
from bench.data.images import ArraySplit, Split


def make_feed(split: Split, subset: Tensor, config: FeedConfig) -> Feed:
    """The feed that fits the split: in memory on the device, or decoded by workers.

    Without a crop a picture is resized as tests resize it, which is not done on the device.
    """
    if isinstance(split, ArraySplit) and is_plain(config.augment):
        fits = split.images.shape[-1] == config.image_size
        if fits or config.augment.crop_scale != (1.0, 1.0):
            return ArrayFeed(split, subset, config)
    return FileFeed(split, subset, config)


def _batches(
    feed: ArrayFeed | FileFeed, epoch: int, first: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches of an epoch: this process's [B] indices into the split, their places, the count."""
    order = feed.subset[feed.config.streams.order(epoch, len(feed.subset))]
    size = feed.config.batch_size
    for step in range(first, feed.steps):
        batch = order[step * size : (step + 1) * size]
        places = feed.config.world.places(len(batch), feed.config.together)
        yield batch[places], places, len(batch)


def _count_steps(images: int, config: FeedConfig) -> int:
    if config.drop_last and images >= config.batch_size:
        return images // config.batch_size
    return -(-images // config.batch_size)


class ArrayFeed:
    """Batches of in-memory images, cropped on the device."""

    def __init__(self, split: ArraySplit, subset: Tensor, config: FeedConfig) -> None:
        self.subset, self.config = subset, config
        self.steps = _count_steps(len(subset), config)
        self.images = normalise(split.images.to(config.device), config.data)
        self.labels = split.labels.to(config.device)
        augment = config.augment
        self.moves = augment.crop_scale != (1.0, 1.0) or augment.flip > 0

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of an epoch, from step ``first`` on."""
        config = self.config
        for ids, places, count in _batches(self, epoch, first):
            ids = ids.to(config.device)
            images = self.images[ids]
            boxes = torch.zeros(len(ids), 5, device=config.device)
            if self.moves:
                stream = config.streams.samples(f"{config.purpose} crop", epoch, ids)
                boxes = crop_boxes(stream, config.augment)
                images = crop(images, boxes, config.image_size, config.augment.interpolation)
            yield Step(ids, images, self.labels[ids], boxes, places.to(config.device), count)


class _Pictures:
    """Worker side of :class:`FileFeed`: item (epoch, id) is a decoded, augmented picture."""

    def __init__(self, split: Split, config: FeedConfig, training: bool) -> None:
        self.split, self.config = split, config
        self.transform = partial(augmented if training else centred, config=config)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
        epoch, index = item
        picture, readable = self.split.open_any(index)
        with self.config.streams.scoped(f"{self.config.purpose} augment", epoch, index):
            return *self.transform(picture), readable


class FileFeed:
    """Batches of pictures decoded and augmented in ``workers`` processes, kept over the epochs."""

    def __init__(self, split: Split, subset: Tensor, config: FeedConfig) -> None:
        self.split, self.subset, self.config, self.labels = split, subset, config, split.labels
        self.steps = _count_steps(len(subset), config)
        self.decoder = Decoder(_Pictures(split, config, training=True), config)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of an epoch, from step ``first`` on. Decoding begins with this call."""
        batches = list(_batches(self, epoch, first))
        plan = [[(epoch, int(i)) for i in ids] for ids, _, _ in batches]
        return self._steps(batches, self.decoder.start(plan))

    def _steps(
        self, batches: Sequence[tuple[Tensor, Tensor, int]], decoded: Iterator[Decoded]
    ) -> Iterator[Step]:
        put = partial(torch.Tensor.to, device=self.config.device, non_blocking=True)
        for ids, places, count in batches:
            begin = time.perf_counter()
            images, boxes, readable = next(decoded)
            waited = time.perf_counter() - begin
            self.split.note_unreadable(ids[~readable])
            images, labels = _normalised(images, self.config), self.labels[ids]
            yield Step(put(ids), images, put(labels), put(boxes), put(places), count, waited)


def _normalised(images: Tensor, config: FeedConfig) -> Tensor:
    """A decoded batch on the device; bytes are normalised there, a quarter of the traffic."""
    images = images.to(config.device, non_blocking=True)
    return images if images.is_floating_point() else normalise(images, config.data)


def evaluation_batches(
    split: Split, subset: Tensor, config: FeedConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of a subset in order, without augmentation, in batches."""
    chunks = subset.split(config.batch_size)
    if isinstance(split, ArraySplit) and split.images.shape[-1] == config.image_size:
        for ids in chunks:
            images = normalise(split.images[ids].to(config.device), config.data)
            yield images, split.labels[ids].to(config.device)
        return
    pictures = _Pictures(split, config, training=False)
    plan = [[(0, int(i)) for i in ids] for ids in chunks]
    decoded = Decoder(pictures, config).start(plan)
    for ids, (images, _, readable) in zip(chunks, decoded, strict=True):
        split.note_unreadable(ids[~readable])
        yield _normalised(images, config), split.labels[ids].to(config.device)
