"""A second view of a batch: the same crops in other colours, from each sample's own stream.

Pure functions of images in [0, 1]; one number of a draw belongs to one image. B images, C
channels, S pixels a side. Operations and their ranges are torchvision's ``ColorJitter``, its
``RandomGrayscale``, Pillow's ``GaussianBlur`` and ``solarize``, on floats instead of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Photometric, SampleStream, needs_of
from bench.plan.config import RunConfig
from bench.plan.sections import DataConfig

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey level (ITU-R 601, as torchvision has them)."""

JITTER, ORDER, GREY, BLUR, SOLARISE, DRAWS = 0, 5, 9, 10, 12, 13
"""Where each operation's draws start, and how many there are."""

TAIL = 3
"""Standard deviations at which a blur is cut."""


def view_for(config: RunConfig, images: Tensor, stream: SampleStream) -> Tensor | None:
    """The second view of normalised crops that the method of a run asks for, if it does."""
    how = needs_of(config.hyper).view
    return None if how is None else second_view(images, config.data, how, stream)


def second_view(images: Tensor, data: DataConfig, how: Photometric, stream: SampleStream) -> Tensor:
    """Normalised crops [B, C, S, S] in other colours, normalised again."""
    mean = torch.tensor(data.mean, device=images.device)[:, None, None]
    std = torch.tensor(data.std, device=images.device)[:, None, None]
    x = (images * std + mean).clamp_(0, 1)
    return (recolour(x, how, stream.uniform(DRAWS)) - mean) / std


def recolour(x: Tensor, how: Photometric, draws: Tensor) -> Tensor:
    """Images [B, C, S, S] in [0, 1], changed by draws [B, DRAWS]; ``x`` may be overwritten."""
    x = jitter(x, how, draws[:, JITTER], draws[:, JITTER + 1 : ORDER], draws[:, ORDER:GREY])
    x = _some(x, draws[:, GREY] < how.grey_p, lambda part, rows: grey(part).expand_as(part))
    low, high = how.blur_radius
    radius = low + draws[:, BLUR + 1] * (high - low)
    taps = math.ceil(TAIL * high)
    x = _some(x, draws[:, BLUR] < how.blur_p, lambda part, rows: blur(part, radius[rows], taps))
    return _some(x, draws[:, SOLARISE] < how.solarise_p, lambda part, rows: solarise(part))


def jitter(x: Tensor, how: Photometric, chance: Tensor, draws: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue [B, 4 draws], in the order of ``order`` [B, 4]."""
    amounts = torch.tensor(how.jitter, device=x.device)
    shifts = amounts * (2 * draws - 1)
    factors = (1 + shifts).clamp(min=0)
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda part, rows: brightness(part, factors[rows, 0]),
        lambda part, rows: contrast(part, factors[rows, 1]),
        lambda part, rows: saturation(part, factors[rows, 2]),
        lambda part, rows: hue(part, shifts[rows, 3]),
    )
    places, chosen = order.argsort(dim=1), chance < how.jitter_p
    for turn in range(len(changes)):
        for kind, change in enumerate(changes):
            if how.jitter[kind]:
                x = _some(x, chosen & (places[:, turn] == kind), change)
    return x


def _some(x: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``x`` with the chosen images [B] changed; ``change`` also learns which rows those are."""
    rows = chosen.nonzero()[:, 0]
    return x.index_copy(0, rows, change(x[rows], rows)) if len(rows) else x


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Levels times a factor an image [B]."""
    return (x * _each(factor)).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Levels drawn from the mean grey level, or towards it, by a factor an image [B]."""
    return _blend(x, grey(x).mean((1, 2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Levels drawn from the grey of their pixel, or towards it, by a factor an image [B]."""
    return _blend(x, grey(x), factor)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Hue turned by a share of the colour circle [B]; images that have no colours stay."""
    if x.shape[1] != 3:
        return x
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    red, green, blue = x.unbind(1)
    span = torch.where(chroma > 0, chroma, 1.0)
    sixth = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    turned = sixth + 6 * shift[:, None, None]
    channels = []
    for offset in (5, 3, 1):
        k = (offset + turned) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def grey(x: Tensor) -> Tensor:
    """Grey levels [B, 1, S, S]."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = torch.tensor(LUMA, device=x.device)[:, None, None]
    return (x * weights).sum(1, keepdim=True)


def blur(x: Tensor, radius: Tensor, taps: int) -> Tensor:
    """Gaussian blur of a standard deviation an image [B], over ``taps`` pixels on either side."""
    b, c, height, width = x.shape
    places = torch.arange(-taps, taps + 1, device=x.device)
    kernel = (-0.5 * (places / radius[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]
    x = F.pad(x.reshape(1, b * c, height, width), [taps] * 4, mode="replicate")
    x = F.conv2d(x, kernel[:, :, :, None], groups=b * c)
    return F.conv2d(x, kernel[:, :, None, :], groups=b * c).view(b, c, height, width)


def solarise(x: Tensor) -> Tensor:
    """The brighter half of the levels inverted: bytes from 128 on."""
    return torch.where(x * 255 >= 127.5, 1 - x, x)


def _each(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (_each(factor) * x + (1 - _each(factor)) * other).clamp(0, 1)
