"""The second view of a crop: torchvision's operations, each image's own draws, both ends known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torchvision.transforms import functional as tvf

from bench.api import Photometric
from bench.data import views
from bench.plan.sections import DataConfig
from bench.streams import Streams

FULL = Photometric(
    jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey_p=0.2, blur_p=0.1, solarise_p=0.2
)


def images(count: int = 5, channels: int = 3, side: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    found = torch.rand(count, channels, side, side, generator=generator)
    found[0, :, 0, :3] = 0.5  # no colour
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (views.brightness, tvf.adjust_brightness, [0.6, 0.8, 1.0, 1.2, 1.4]),
        (views.contrast, tvf.adjust_contrast, [0.6, 0.8, 1.0, 1.2, 1.4]),
        (views.saturation, tvf.adjust_saturation, [0.0, 0.8, 1.0, 1.2, 1.4]),
        (views.hue, tvf.adjust_hue, [-0.1, -0.03, 0.0, 0.05, 0.5]),
    ],
)
def test_each_operation_is_torchvisions(ours, theirs, values) -> None:
    x = images()
    expected = torch.stack([theirs(i, v) for i, v in zip(x, values, strict=True)])
    assert (ours(x, torch.tensor(values)) - expected).abs().max() < 2e-6


def test_grey_is_torchvisions() -> None:
    x = images()
    assert (views.grey(x) - tvf.rgb_to_grayscale(x)).abs().max() < 1e-6


def test_blur_is_a_gaussian_with_edges_repeated() -> None:
    x, radius = images(), [0.1, 0.5, 1.0, 1.5, 2.0]
    options = {"mode": "nearest", "radius": 6}
    expected = [
        gaussian_filter1d(gaussian_filter1d(i.numpy(), r, axis=1, **options), r, axis=2, **options)
        for i, r in zip(x, radius, strict=True)
    ]
    found = views.blur(x, torch.tensor(radius), 6)
    assert (found - torch.from_numpy(np.stack(expected))).abs().max() < 1e-6


def test_solarised_bytes_are_pillows() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(levels)))
    found = views.solarise(torch.from_numpy(levels)[None, None] / 255) * 255
    assert np.array_equal(found[0, 0].round().numpy().astype(np.uint8), expected)


def draws(count: int, epoch: int = 0) -> Tensor:
    return Streams(0, 0).samples("view", epoch, torch.arange(count)).uniform(views.DRAWS)


def test_an_images_view_depends_on_its_own_draws_alone() -> None:
    x, own = images(40), draws(40)
    whole = views.recolour(x.clone(), FULL, own)
    assert torch.equal(x, images(40)), "what was given stays"
    parts = [views.recolour(x[p], FULL, own[p]) for p in (slice(0, 7), slice(7, 40))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    other = views.recolour(x, FULL, draws(40, epoch=1))
    assert (other - whole).flatten(1).abs().amax(1).gt(1e-3).float().mean() > 0.7


@pytest.mark.parametrize(
    ("how", "share"),
    [
        (Photometric(jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8), 0.8),
        (Photometric(grey_p=0.2), 0.2),
        (Photometric(blur_p=0.1, blur_radius=(0.5, 2.0)), 0.1),
        (Photometric(solarise_p=0.2), 0.2),
        (Photometric(), 0.0),
    ],
)
def test_each_operation_has_its_chance(how: Photometric, share: float) -> None:
    x = images(2000, side=4)
    changed = (views.recolour(x, how, draws(2000)) - x).flatten(1).abs().amax(1) > 1e-6
    assert abs(changed.float().mean() - share) < 0.03


def test_the_order_of_the_jitter_is_drawn() -> None:
    """Brightness then contrast is not contrast then brightness: both orders occur, as drawn."""
    how = Photometric(jitter=(0.4, 0.4, 0.0, 0.0), jitter_p=1.0)
    x, own = images(2), torch.full((2, views.DRAWS), 0.9)
    own[:, views.JITTER] = 0.0
    own[0, views.ORDER : views.GREY] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    own[1, views.ORDER : views.GREY] = torch.tensor([0.2, 0.1, 0.3, 0.4])
    found = views.recolour(x, how, own)
    factor = torch.tensor([1 + 0.4 * 0.8])
    first = views.contrast(views.brightness(x[:1], factor), factor)
    second = views.brightness(views.contrast(x[1:], factor), factor)
    assert (found[0] - first[0]).abs().max() < 1e-6
    assert (found[1] - second[0]).abs().max() < 1e-6


def test_grey_images_have_no_colour_to_lose() -> None:
    x = images(50, channels=1)
    how = Photometric(jitter=(0.0, 0.0, 0.2, 0.1), jitter_p=1.0, grey_p=1.0)
    assert (views.recolour(x, how, draws(50)) - x).abs().max() < 1e-6


def test_normalised_images_come_back_normalised() -> None:
    data = DataConfig(name="cifar10", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    x, stream = images(60), Streams(0, 0).samples("view", 0, torch.arange(60))
    found = views.second_view((x - mean) / std, data, FULL, stream)
    expected = (views.recolour(x, FULL, stream.uniform(views.DRAWS)) - mean) / std
    assert (found - expected).abs().max() < 1e-4
