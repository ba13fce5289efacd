"""Generated textures and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench.data.images import ArraySplit, ImageSet
from bench.plan.sections import DataConfig


def procedural(config: DataConfig, root: str, size: int) -> ImageSet:
    """Coloured textures and shapes of any resolution, generated from a fixed seed.

    A class is an orientation, a spatial frequency and a shape; colour, phase, place, size and
    noise vary from image to image. ``data.train_images``, ``data.test_images`` and
    ``data.classes`` set the sizes (defaults 2,048, 1,024 and 16).
    """
    classes = config.classes or 16
    counts = (config.train_images or 2048, config.test_images or 1024)
    channels = len(config.mean)
    splits = [
        _split(np.random.default_rng([20240408, part]), n, classes, (channels, size))
        for part, n in enumerate(counts)
    ]
    return ImageSet(splits[0], splits[1], classes)


def _split(rng: np.random.Generator, count: int, classes: int, form: tuple[int, int]) -> ArraySplit:
    labels = np.arange(count) % classes
    images = np.stack([_image(rng, int(k), form) for k in labels])
    return ArraySplit(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _image(rng: np.random.Generator, label: int, form: tuple[int, int]) -> np.ndarray[Any, Any]:
    channels, size = form
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = np.pi * (label % 4) / 4 + rng.normal(0, 0.12)
    frequency = (2.0, 4.0)[label // 4 % 2] * rng.uniform(0.85, 1.15)
    wave = np.sin(2 * np.pi * (frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform()))
    cx, cy, radius = *rng.uniform(-0.2, 0.2, 2), rng.uniform(0.15, 0.28)
    round_ = np.hypot(x - cx, y - cy) < radius
    square = np.maximum(abs(x - cx), abs(y - cy)) < radius * 0.886
    inside = (round_ if label // 8 % 2 else square)[..., None]
    ground, shape = rng.uniform(0.1, 0.9, (2, channels))
    image = ground + 0.25 * wave[..., None] * rng.uniform(0.5, 1.0, channels)
    image = np.where(inside, shape + 0.05 * wave[..., None], image)
    image = image + rng.normal(0, 0.05, image.shape)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)
