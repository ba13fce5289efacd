"""Random resized crops: boxes drawn from a stream, and cut out of whole batches.

B images, C channels, S pixels a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.plan.sections import AugmentConfig
from bench.streams import Samples

CROP_TRIES = 10
"""Tries of a random resized crop before the centre crop (torchvision)."""


def crop_boxes(stream: Samples, augment: AugmentConfig, ratio: Tensor | float = 1.0) -> Tensor:
    """Random resized crops and flips as fractions, [B, 5]; ``ratio`` is image width over height.

    Follows torchvision's RandomResizedCrop: ten tries of area and aspect, else the whole width
    or height, centred; or, with ``crop_misfit`` ``clamp``, one try cut to the image. With
    ``crop_scale`` (1, 1) nothing is cut.
    """
    draws = stream.uniform(2 * CROP_TRIES + 3).double()
    low, high = augment.crop_scale
    area = low + draws[:, :CROP_TRIES] * (high - low)
    logs = torch.tensor(augment.crop_ratio, dtype=torch.float64, device=draws.device).log()
    aspect = (logs[0] + draws[:, CROP_TRIES : 2 * CROP_TRIES] * (logs[1] - logs[0])).exp()
    width, height = (area * aspect / ratio).sqrt(), (area / aspect * ratio).sqrt()
    if augment.crop_misfit == "clamp":
        width, height = width.clamp(max=1), height.clamp(max=1)
    fits = (width <= 1) & (height <= 1) & (augment.crop_scale != (1.0, 1.0))
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.any(1)
    width = torch.where(found, width.gather(1, first)[:, 0], 1.0)
    height = torch.where(found, height.gather(1, first)[:, 0], 1.0)
    top = torch.where(found, draws[:, -3] * (1 - height), 0.0)
    left = torch.where(found, draws[:, -2] * (1 - width), 0.0)
    flipped = (draws[:, -1] < augment.flip).double()
    return torch.stack([top, left, height, width, flipped], dim=1).float()


def crop(images: Tensor, boxes: Tensor, size: int, mode: str) -> Tensor:
    """Cuts boxes out of images [B, C, S', S'] and resizes them to [B, C, size, size].

    B may be 0: of several processes one may have no image of a last batch.
    """
    if not len(images):
        return images.new_zeros(0, images.shape[1], size, size)
    top, left, height, width, flipped = boxes.unbind(1)
    zero = torch.zeros_like(top)
    sign = 1 - 2 * flipped
    rows = torch.stack([width * sign, zero, 2 * left + width - 1], 1)
    columns = torch.stack([zero, height, 2 * top + height - 1], 1)
    grid = F.affine_grid(
        torch.stack([rows, columns], 1), [len(images), images.shape[1], size, size], False
    )
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
