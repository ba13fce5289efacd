"""Power of the paired t test: how many seeds find an effect, what effect some seeds find."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from scipy.special import nctdtr, stdtrit

from bench.stats.means import t_quantile

POWER = 0.8
"""Chance with which an effect is to be found."""

MOST_SEEDS = 1000
"""No study needs more: the count stops there."""


def power_of(n: int, effect: float, sd: float, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test: n differences of sample sd ``sd``, mean ``effect``."""
    if n < 2:
        return 0.0
    shift = abs(effect) / sd * math.sqrt(n)
    t = t_quantile(n, alpha)
    return 1 - _below(n - 1, shift, t) + _below(n - 1, shift, -t)


def _below(freedom: int, shift: float, t: float) -> float:
    """Noncentral t's share below t; SciPy has NaN where it vanishes, far below the shift."""
    share = float(nctdtr(freedom, shift, t))
    return 0.0 if math.isnan(share) else share


def smallest_effect(n: int, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Smallest mean difference that n seeds find with the given power; infinite below two."""
    return math.inf if n < 2 else sd * _smallest_in_sds(n, power, alpha)


@cache
def _smallest_in_sds(n: int, power: float, alpha: float) -> float:
    low, high = 0.0, 1.0
    while power_of(n, high, 1.0, alpha) < power:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(n, middle, 1.0, alpha) < power else (low, middle)
    return high


def seeds_needed(effect: float, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Fewest seeds that find a mean difference ``effect``; NaN without a positive one.

    Infinite above :data:`MOST_SEEDS`.
    """
    if not effect > 0 or math.isnan(sd):
        return math.nan
    if sd == 0:
        return 2
    return _fewest(lambda n: power_of(n, effect, sd, alpha) >= power) or math.inf


def seeds_to_settle(gap: float, sd: float, power: float = POWER, alpha: float = 0.05) -> int | None:
    """Seeds with which a one-sided paired t test tells on which side of a limit a mean lies.

    Args:
        gap: distance of the mean difference from the limit, taken as the true one.
        sd: sample sd of the differences.
        power: wanted probability of telling.
        alpha: level of the test.

    Returns:
        The smallest number, or None if it is above :data:`MOST_SEEDS`.
    """
    if sd == 0:
        return 2 if gap else None
    shift = abs(gap) / sd

    def tells(n: int) -> bool:
        limit = stdtrit(n - 1, 1 - alpha)
        return 1 - _below(n - 1, shift * math.sqrt(n), limit) >= power

    return _fewest(tells)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds that is enough, from two on; None if MOST_SEEDS is not."""
    if not enough(MOST_SEEDS):
        return None
    return 2 + bisect_left(range(2, MOST_SEEDS), True, key=enough)
