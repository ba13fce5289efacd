"""What the choice of test images adds to the uncertainty: a paired bootstrap over images. Pure.

Legend: R pairs of runs, N test images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]

DRAWS = 20_000
"""Resamples of the test set: ends of the interval are good to about 1 % of its width."""

SEED = 240408330
"""Of the resampling, so that the same runs give the same interval."""


@dataclass(frozen=True, kw_only=True)
class ImageGap:
    """A difference over test images: its 95 % interval in points, and how many images decide it.

    ``discordant`` is the share of images that one arm gets right and the other does not, mean over
    the pairs; ``pairs`` and ``images`` are how many there were.
    """

    low: float
    high: float
    discordant: float
    pairs: int
    images: int


def image_gap(ours: Flags, theirs: Flags, alpha: float = 0.05) -> ImageGap:
    """Interval of the mean difference in accuracy for these runs on other test images of the kind.

    The images are drawn anew with replacement, the same ones for both arms and for every pair. The
    runs are taken as they are: the interval holds no uncertainty of seeds.

    Args:
        ours: whether the method's runs got each image right [R, N].
        theirs: the baseline's runs, pair by pair [R, N].
        alpha: 1 - coverage.
    """
    pairs, images = ours.shape
    votes = ours.sum(axis=0, dtype=np.int64) - theirs.sum(axis=0, dtype=np.int64)
    values, counts = np.unique(votes, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(images, counts / images, size=DRAWS)
    means = 100.0 * (drawn @ values) / (pairs * images)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    share = float(np.mean(ours != theirs))
    return ImageGap(low=float(low), high=float(high), discordant=share, pairs=pairs, images=images)
