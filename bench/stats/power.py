"""Power of the paired t test: how many seeds find an effect, what effect some seeds find."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import nctdtr, stdtrit

from bench.stats.means import Array, t_quantile

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
    return float(1 - _below(n - 1, shift, t) + _below(n - 1, shift, -t))


def _below(freedom: Array | int, shift: Array | float, t: Array | float) -> Array:
    """Noncentral t's share below t; SciPy has NaN where it vanishes, far below the shift."""
    return np.asarray(np.nan_to_num(nctdtr(freedom, shift, t)))


def smallest_effect(n: int, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Smallest mean difference that n seeds find with the given power; infinite below two."""
    if n < 2:
        return math.inf
    if sd == 0:
        return 0.0
    low, high = 0.0, sd
    while power_of(n, high, sd, alpha) < power:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(n, middle, sd, alpha) < power else (low, middle)
    return high


def seeds_needed(effect: float, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Fewest seeds that find a mean difference ``effect``; NaN without a positive one.

    Infinite above :data:`MOST_SEEDS`.
    """
    if not effect > 0 or math.isnan(sd):
        return math.nan
    if sd == 0:
        return 2
    low, high = 1, 2
    while power_of(high, effect, sd, alpha) < power:
        if high > MOST_SEEDS:
            return math.inf
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_of(middle, effect, sd, alpha) < power else (low, middle)
    return high


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
    numbers = np.arange(2, MOST_SEEDS + 1, dtype=np.float64)
    shift = np.abs(gap) * np.sqrt(numbers) / sd
    reached = 1 - _below(numbers - 1, shift, stdtrit(numbers - 1, 1 - alpha)) >= power
    return int(numbers[reached.argmax()]) if reached.any() else None
