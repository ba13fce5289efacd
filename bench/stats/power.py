"""Power of the paired t test: how many seeds find an effect, what effect some seeds find."""

from __future__ import annotations

import math

from scipy.special import nctdtr

from bench.stats.means import t_quantile


def power_of(n: int, effect: float, sd: float, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test: n differences of sample sd ``sd``, mean ``effect``."""
    if n < 2:
        return 0.0
    shift = effect / sd * math.sqrt(n)
    t = t_quantile(n, alpha)
    return float(1 - nctdtr(n - 1, shift, t) + nctdtr(n - 1, shift, -t))


def smallest_effect(n: int, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
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
