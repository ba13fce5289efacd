"""What the choice of test images adds to the uncertainty: a paired bootstrap over images. Pure.

Resampling is not simulated: the sum over N images drawn with replacement is a sum of N equal
independent integers, whose distribution is exact by the discrete Fourier transform.

Legend: R pairs of runs, N test images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len

Flags = npt.NDArray[np.bool_]

REACH = 12.0
"""Standard deviations of the sum on each side beyond which nothing is left to count."""


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
    low, high = 100.0 * _ends_of_sum(votes, alpha) / (pairs * images)
    share = float(np.mean(ours != theirs))
    return ImageGap(low=float(low), high=float(high), discordant=share, pairs=pairs, images=images)


def _ends_of_sum(votes: npt.NDArray[np.int64], alpha: float) -> npt.NDArray[np.int64]:
    """Quantiles alpha / 2 and 1 - alpha / 2 of the sum of as many votes, drawn from these [2]."""
    count, least = len(votes), int(votes.min())
    share = np.bincount(votes - least) / count
    reach = math.ceil(REACH * votes.std() * math.sqrt(count)) + len(share)
    first = max(0, round((votes - least).sum()) - reach)  # of the sums that are told apart
    size = next_fast_len(min(2 * reach, count * (len(share) - 1)) + 1)
    wrapped = np.bincount(np.arange(len(share)) % size, share, size)
    chance = np.roll(np.fft.irfft(np.fft.rfft(wrapped) ** count, size), -(first % size))
    at = np.searchsorted(np.cumsum(chance), [alpha / 2, 1 - alpha / 2])
    return np.asarray(first + at + count * least)
