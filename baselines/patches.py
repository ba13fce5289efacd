"""Images to patches and back. B images, C channels, S pixels a side, p of a patch, N patches."""

from __future__ import annotations

import torch
from torch import Tensor


def patchify(images: Tensor, patch: int) -> Tensor:
    """[B, C, S, S] to [B, N, C*p*p], a patch's pixels in the order (channel, row, column).

    This is the order of a convolution's weight and of SimMIM's PixelShuffle.
    """
    b, c, height, width = images.shape
    rows, columns = height // patch, width // patch
    x = images.reshape(b, c, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(b, rows * columns, c * patch * patch)


def unpatchify(patches: Tensor, patch: int, channels: int) -> Tensor:
    """Inverse of :func:`patchify` for square images."""
    b, n, _ = patches.shape
    side = round(n**0.5)
    x = patches.reshape(b, side, side, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, channels, side * patch, side * patch)


def pixels_last(patches: Tensor, channels: int) -> Tensor:
    """Reorders a patch from (channel, row, column) to MAE's (row, column, channel).

    Source: facebookresearch/mae models_mae.py:95-107.
    """
    return patches.unflatten(-1, (channels, -1)).transpose(-1, -2).flatten(-2)


def pixels_first(patches: Tensor, channels: int) -> Tensor:
    """Inverse of :func:`pixels_last`."""
    return patches.unflatten(-1, (-1, channels)).transpose(-1, -2).flatten(-2)


def normalise_patches(patches: Tensor, eps: float = 1e-6) -> Tensor:
    """Each patch to mean 0 and variance 1 over all its pixels and channels, variance unbiased.

    Source: MAE, models_mae.py:205-208.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) * (variance + eps).rsqrt()
