"""Augmentation of single pictures, with torchvision's and timm's own functions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.data.batch import FeedConfig, normalise
from bench.plan.sections import AugmentConfig


def is_plain(augment: AugmentConfig) -> bool:
    """Whether crops and flips are all there is, so that a batch can be made on the device."""
    return not (augment.auto_augment or augment.color_jitter or augment.random_erasing)


def augmented(picture: Any, config: FeedConfig) -> tuple[Tensor, Tensor]:
    """One augmented picture and its box, zeros (but for the flip) where no crop is drawn.

    Library code draws from the scoped generators. The picture is bytes unless something acts on
    normalised pixels. It is resized as a tensor of bytes with an antialiased filter, faster than
    as a Pillow picture (docs/performance.md), or without a crop as a test image is.
    """
    from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop
    from torchvision.transforms.v2 import functional as tvf

    augment, (width, height) = config.augment, picture.size
    if augment.color_jitter:
        picture = ColorJitter(*[augment.color_jitter] * 3)(picture)
    if augment.crop_scale == (1.0, 1.0):  # no crop is drawn: the shapes that tests see
        image, box = centred(picture, config)
        box[4] = float(torch.rand(()) < augment.flip)
        image = tvf.horizontal_flip(image) if box[4] else image
        return _late_augment(image, config), box
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
    from timm.data import auto_augment
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
        transform = auto_augment.rand_augment_transform(augment.auto_augment, settings)
        for op in transform.ops:
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = posterize
        image = pil_to_tensor(transform(to_pil_image(image)))
    if not augment.random_erasing:
        return image
    erase = RandomErasing(augment.random_erasing, mode="pixel", device="cpu")
    erased: Tensor = erase(normalise(image, data))
    return erased


def posterize(picture: Any, bits: int, **unused: Any) -> Any:
    """What timm's operation makes; of no bits a black picture, which Pillow 13 refuses."""
    from timm.data import auto_augment

    black = [0] * 256 * len(picture.getbands())
    return auto_augment.posterize(picture, bits) if bits > 0 else picture.point(black)


def centred(picture: Any, config: FeedConfig) -> tuple[Tensor, Tensor]:
    """Resize so that the centre crop covers 87.5 % of the shorter side, then crop (ImageNet).

    Above 224 px the crop covers all of it (MAE util/datasets.py:52-58), and below 64 px too: small
    sets come at their own size. Pillow resizes, as in every original's evaluation.
    """
    from torchvision.transforms import functional as tvf

    size = config.image_size
    share = 224 / 256 if 64 <= size <= 224 else 1.0
    picture = tvf.resize(picture, int(size / share), tvf.InterpolationMode.BICUBIC)
    return tvf.pil_to_tensor(tvf.center_crop(picture, [size, size])), torch.zeros(5)
