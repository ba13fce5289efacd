"""From image sets to batches: order, crops and augmentation drawn from counter-based streams.

Two feeds give the same batches in the same order: :class:`ArrayFeed` crops whole batches of
in-memory images on the device, :class:`FileFeed` decodes pictures in worker processes. B images,
C channels, S pixels a side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import registry
from bench.data.images import ArraySplit, ImageSet, Split
from bench.errors import DataError
from bench.machine.world import SOLO, World
from bench.plan.config import RunConfig
from bench.plan.sections import AugmentConfig, DataConfig
from bench.streams import Samples, Streams

CROP_TRIES = 10
"""Tries of a random resized crop before the centre crop (torchvision)."""


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


class Feed(Protocol):
    """Batches of one stage."""

    steps: int

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of an epoch, from step ``first`` on."""
        ...


@dataclass(frozen=True)
class FeedConfig:
    """What a feed needs besides the images: sizes, augmentation, streams and where to put them."""

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


def load(config: RunConfig, root: str, strict: bool = False) -> ImageSet:
    """The image set of a run; with ``strict`` an unreadable picture is an error.

    Raises:
        DataError: if it is missing or unreadable, or does not fit the model.
    """
    images: ImageSet = registry.load(registry.dataset(dataset_key(config.data.name)).target)(
        config.data, root, config.model.image_size
    )
    if strict:
        images = images.strict()
    if isinstance(images.train, ArraySplit):
        channels = images.train.images.shape[1]
        if channels != config.model.channels:
            raise DataError(
                f"data set '{config.data.name}' has {channels} channels, the model "
                f"{config.model.channels}. Set model.channels={channels}."
            )
    return images


def dataset_key(name: str) -> str:
    """The registry row of a data-set name; names with a slash are timm's."""
    return "timm" if "/" in name else name


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


def crop_boxes(stream: Samples, augment: AugmentConfig, ratio: Tensor | float = 1.0) -> Tensor:
    """Random resized crops and flips as fractions, [B, 5]; ``ratio`` is image width over height.

    Follows torchvision's RandomResizedCrop: ten tries of area and aspect, else the whole width
    or height, centred; or, with ``crop_misfit`` ``clamp``, one try cut to the image.
    """
    draws = stream.uniform(2 * CROP_TRIES + 3).double()
    low, high = augment.crop_scale
    area = low + draws[:, :CROP_TRIES] * (high - low)
    logs = torch.tensor(augment.crop_ratio, dtype=torch.float64, device=draws.device).log()
    aspect = (logs[0] + draws[:, CROP_TRIES : 2 * CROP_TRIES] * (logs[1] - logs[0])).exp()
    width, height = (area * aspect / ratio).sqrt(), (area / aspect * ratio).sqrt()
    if augment.crop_misfit == "clamp":
        width, height = width.clamp(max=1), height.clamp(max=1)
    fits = (width <= 1) & (height <= 1)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.any(1)
    width = torch.where(found, width.gather(1, first)[:, 0], 1.0)
    height = torch.where(found, height.gather(1, first)[:, 0], 1.0)
    top = torch.where(found, draws[:, -3] * (1 - height), 0.0)
    left = torch.where(found, draws[:, -2] * (1 - width), 0.0)
    flipped = (draws[:, -1] < augment.flip).double()
    return torch.stack([top, left, height, width, flipped], dim=1).float()


def crop(images: Tensor, boxes: Tensor, size: int, mode: str) -> Tensor:
    """Cuts boxes out of images [B, C, S', S'] and resizes them to [B, C, size, size]."""
    top, left, height, width, flipped = boxes.unbind(1)
    zero = torch.zeros_like(top)
    sign = 1 - 2 * flipped
    rows = torch.stack([width * sign, zero, 2 * left + width - 1], 1)
    columns = torch.stack([zero, height, 2 * top + height - 1], 1)
    grid = F.affine_grid(
        torch.stack([rows, columns], 1), [len(images), images.shape[1], size, size], False
    )
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def is_plain(augment: AugmentConfig) -> bool:
    """Whether crops and flips are all there is, so that a batch can be made on the device."""
    return not (augment.auto_augment or augment.color_jitter or augment.random_erasing)


def make_feed(split: Split, subset: Tensor, config: FeedConfig) -> Feed:
    """The feed that fits the split: in memory on the device, or decoded by workers."""
    if isinstance(split, ArraySplit) and is_plain(config.augment):
        return ArrayFeed(split, subset, config)
    return FileFeed(split, subset, config)


def normalise(images: Tensor, config: DataConfig) -> Tensor:
    """Bytes to normalised float32, channel-wise, [..., C, S, S]."""
    mean, std = _levels(config.mean, images.device), _levels(config.std, images.device)
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _levels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Shares of full brightness as levels of a byte, [C, 1, 1]; kept, as the copy halts a GPU."""
    return torch.tensor(values, device=device)[:, None, None] * 255


def _batches(
    feed: ArrayFeed | FileFeed, epoch: int, first: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches of an epoch: this process's [B] indices into the split, their places, the count."""
    order = feed.subset[feed.config.streams.order(epoch, len(feed.subset))]
    size = feed.config.batch_size
    for step in range(first, feed.steps):
        batch = order[step * size : (step + 1) * size]
        places = feed.config.world.places(len(batch))
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
        self.resizes = self.images.shape[-1] != config.image_size

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
            elif self.resizes:
                boxes[:, 2:4] = 1.0
            if self.moves or self.resizes:
                mode = config.augment.interpolation
                images = crop(images, boxes, config.image_size, mode)
            yield Step(ids, images, self.labels[ids], boxes, places.to(config.device), count)


class _Pictures(Dataset[Any]):
    """Worker side of :class:`FileFeed`: item (epoch, id) is a decoded, augmented picture."""

    def __init__(self, split: Split, config: FeedConfig, training: bool) -> None:
        self.split, self.config = split, config
        self.transform = partial(_augment if training else _centre, config=config)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
        epoch, index = item
        picture, readable = self.split.open_any(index)
        with self.config.streams.scoped(f"{self.config.purpose} augment", epoch, index):
            return *self.transform(picture), readable


def _augment(picture: Any, config: FeedConfig) -> tuple[Tensor, Tensor]:
    """One augmented picture and its box. Library code draws from the scoped generators.

    The picture is bytes unless something acts on normalised pixels. It is resized as a tensor of
    bytes with an antialiased filter, faster than as a Pillow picture (docs/performance.md).
    """
    from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop
    from torchvision.transforms.v2 import functional as tvf

    augment, (width, height) = config.augment, picture.size
    if augment.color_jitter:
        picture = ColorJitter(*[augment.color_jitter] * 3)(picture)
    if augment.crop_misfit == "clamp":
        params = _one_try(picture.size, augment)
    else:
        params = RandomResizedCrop.get_params(
            picture, list(augment.crop_scale), list(augment.crop_ratio)
        )
    mode = InterpolationMode(augment.interpolation)
    image = tvf.pil_to_tensor(tvf.crop(picture, *params))
    image = tvf.resize(image, [config.image_size] * 2, mode, antialias=True)
    flipped = bool(torch.rand(()) < augment.flip)
    if flipped:
        image = tvf.horizontal_flip(image)
    top, left, high, wide = params
    box = torch.tensor([top / height, left / width, high / height, wide / width, float(flipped)])
    return _late_augment(image, config), box


def _one_try(size: tuple[int, int], augment: AugmentConfig) -> tuple[int, int, int, int]:
    """Top, left, height and width of one random crop, cut to a picture of this width and height.

    Source: MAE util/crop.py, the linear probe's own random resized crop.
    """
    width, height = size
    area = width * height * torch.empty(()).uniform_(*augment.crop_scale).item()
    low, high = (math.log(r) for r in augment.crop_ratio)
    aspect = math.exp(torch.empty(()).uniform_(low, high).item())
    wide = min(width, round((area * aspect) ** 0.5))
    high_ = min(height, round((area / aspect) ** 0.5))
    top = int(torch.randint(0, height - high_ + 1, ()))
    left = int(torch.randint(0, width - wide + 1, ()))
    return top, left, high_, wide


def _late_augment(image: Tensor, config: FeedConfig) -> Tensor:
    """RandAugment and, on normalised pixels, random erasing: timm's parts, with timm's settings."""
    if not (config.augment.auto_augment or config.augment.random_erasing):
        return image
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.random_erasing import RandomErasing
    from timm.data.transforms import str_to_pil_interp
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    augment, data = config.augment, config.data
    if augment.auto_augment:
        settings = {
            "translate_const": int(config.image_size * 0.45),
            "img_mean": tuple(min(255, round(255 * m)) for m in data.mean),
            "interpolation": str_to_pil_interp(augment.interpolation),
        }
        picture = rand_augment_transform(augment.auto_augment, settings)(to_pil_image(image))
        image = pil_to_tensor(picture)
    if not augment.random_erasing:
        return image
    erase = RandomErasing(augment.random_erasing, mode="pixel", device="cpu")
    erased: Tensor = erase(normalise(image, data))
    return erased


def _centre(picture: Any, config: FeedConfig) -> tuple[Tensor, Tensor]:
    """Resize so that the centre crop covers 87.5 % of the shorter side, then crop (ImageNet).

    Above 224 px the crop covers all of it (MAE util/datasets.py:52-58), and below 64 px too: small
    sets come at their own size. Pillow resizes, as in every original's evaluation.
    """
    from torchvision.transforms import functional as tvf

    size = config.image_size
    share = 224 / 256 if 64 <= size <= 224 else 1.0
    picture = tvf.resize(picture, int(size / share), tvf.InterpolationMode.BICUBIC)
    return tvf.pil_to_tensor(tvf.center_crop(picture, [size, size])), torch.zeros(5)


class FileFeed:
    """Batches of pictures decoded and augmented in ``workers`` processes."""

    def __init__(self, split: Split, subset: Tensor, config: FeedConfig) -> None:
        self.split, self.subset, self.config, self.labels = split, subset, config, split.labels
        self.steps = _count_steps(len(subset), config)
        self.pictures = _Pictures(split, config, training=True)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of an epoch, from step ``first`` on."""
        batches = list(_batches(self, epoch, first))
        plan = [[(epoch, int(i)) for i in ids] for ids, _, _ in batches]
        decoded = _decoded(self.pictures, plan, self.config)
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


def _decoded(
    pictures: _Pictures, plan: Sequence[Sequence[Any]], config: FeedConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, boxes and readability of each batch; a process may have no image of a small one."""
    batches = iter(_loader(pictures, [items for items in plan if items], config))
    size, channels = config.image_size, len(config.data.mean)
    for items in plan:
        if items:
            yield next(batches)
        else:
            none = torch.zeros(0, dtype=torch.bool)
            yield torch.zeros(0, channels, size, size), torch.zeros(0, 5), none


def _loader(pictures: _Pictures, plan: Sequence[Any], config: FeedConfig) -> DataLoader[Any]:
    return DataLoader(
        pictures,
        batch_sampler=plan,
        num_workers=config.workers,
        pin_memory=config.device.type == "cuda",
        persistent_workers=False,
    )


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
    decoded = _decoded(pictures, plan, config)
    for ids, (images, _, readable) in zip(chunks, decoded, strict=True):
        split.note_unreadable(ids[~readable])
        yield _normalised(images, config), split.labels[ids].to(config.device)
