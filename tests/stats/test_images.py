"""The paired bootstrap over test images, against its limit and against McNemar's variance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.errors import StoreError
from bench.stats.images import image_gap
from bench.store.correct import pack, unpack


def correct(share: float, pairs: int, images: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((pairs, images)) < share


def test_one_pair_has_mcnemars_variance() -> None:
    ours, theirs = correct(0.8, 1, 5000, 1), correct(0.75, 1, 5000, 2)
    found = image_gap(ours, theirs)
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    gap = 100 * (gained - lost) / 5000
    error = 100 * math.sqrt(gained + lost - (gained - lost) ** 2 / 5000) / 5000
    assert found.low == pytest.approx(gap - 1.96 * error, abs=0.06 * error)
    assert found.high == pytest.approx(gap + 1.96 * error, abs=0.06 * error)
    assert found.discordant == pytest.approx((gained + lost) / 5000)
    assert (found.pairs, found.images) == (1, 5000)


@pytest.mark.parametrize(("pairs", "images", "share"), [(1, 2, 0.5), (3, 40, 0.9), (24, 300, 0.02)])
def test_its_ends_are_those_of_all_resamples_there_can_be(
    pairs: int, images: int, share: float
) -> None:
    """The distribution of a sum of N draws, by N convolutions."""
    ours, theirs = correct(share, pairs, images, 1), correct(0.75, pairs, images, 2)
    votes = ours.sum(axis=0, dtype=int) - theirs.sum(axis=0, dtype=int)
    one = np.bincount(votes + pairs, minlength=2 * pairs + 1) / images
    whole = np.ones(1)
    for _ in range(images):
        whole = np.convolve(whole, one)
    sums = np.searchsorted(np.cumsum(whole), [0.1, 0.9]) - pairs * images
    found = image_gap(ours, theirs, alpha=0.2)
    assert (found.low, found.high) == pytest.approx(tuple(100 * sums / (pairs * images)))


def test_images_hard_for_both_arms_do_not_widen_it() -> None:
    """Pairing: what both arms get right or wrong together leaves the difference alone."""
    hard = np.tile(np.arange(4000) < 1000, (3, 1))
    one = np.where(hard, False, correct(0.9, 3, 4000, 3))
    two = one.copy()
    two[:, 2000:2100] = ~two[:, 2000:2100]
    found = image_gap(one, two)
    assert found.high - found.low < 1.0
    assert found.discordant == pytest.approx(100 / 4000)


def test_the_same_runs_give_no_difference() -> None:
    ours = correct(0.5, 4, 100, 5)
    found = image_gap(ours, ours)
    assert (found.low, found.high, found.discordant) == (0.0, 0.0, 0.0)


def test_it_covers_the_truth_over_test_sets() -> None:
    """Of 300 test sets, about 95 % give an interval that holds the difference of the two models."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        ease = rng.random(400)
        ours, theirs = (rng.random((2, 400)) < np.clip(ease + s, 0, 1) for s in (0.1, 0.0))
        found = image_gap(ours, theirs)
        hits += found.low <= 9.5 <= found.high  # the mean of min(ease + 0.1, 1) - ease
    assert 0.92 <= hits / 300 <= 0.98


@pytest.mark.parametrize("count", [1, 7, 8, 9, 359])
def test_bits_come_back(count: int) -> None:
    flags = correct(0.5, 1, count, count)[0]
    assert np.array_equal(unpack(pack(flags)), flags)
    assert len(pack(flags)) < count / 5 + 12


@pytest.mark.parametrize("text", ["", "9:AA==", "8:*", "x:AA=="])
def test_torn_bits_are_told(text: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        unpack(text)
