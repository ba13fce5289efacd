"""Means over seeds and paired differences: intervals, tests, corrections.

Pure functions on arrays with one value a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Array = npt.NDArray[np.float64]

MIN_SEEDS = 5
"""With fewer seeds a table is a pilot: it shows numbers and makes no claim."""

EXACT_SEEDS = 20
"""Most seeds for which all sign flips are enumerated (2**19 sums)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its sample sd, t interval and two-sided p value against 0."""

    mean: float
    sd: float
    low: float
    high: float
    p: float
    n: int


def sample_sd(values: Array) -> float:
    """Sample standard deviation (ddof=1); NaN below two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def t_quantile(n: int, alpha: float) -> float:
    """Two-sided quantile of Student's t for n values; infinite below two."""
    return float(stdtrit(n - 1, 1 - alpha / 2)) if n > 1 else math.inf


def estimate(values: Array, alpha: float = 0.05) -> Estimate:
    """Mean of one value per seed, its t interval and the two-sided p of ``mean == 0``."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, -math.inf, math.inf, math.nan, 0)
    mean, sd = float(np.mean(values)), sample_sd(values)
    if n == 1:
        return Estimate(mean, sd, -math.inf, math.inf, math.nan, 1)
    error = sd / math.sqrt(n)
    half = t_quantile(n, alpha) * error
    return Estimate(mean, sd, mean - half, mean + half, _p_value(mean, error, n), n)


def _p_value(shift: float, error: float, n: int) -> float:
    if error == 0.0:
        return 1.0 if shift == 0.0 else 0.0
    return float(2 * stdtr(n - 1, -abs(shift) / error))


def sign_flip_p(differences: Array) -> float:
    """Exact two-sided p of the sign-flip permutation test; NaN without or with too many seeds."""
    n = len(differences)
    if not 0 < n <= EXACT_SEEDS:
        return math.nan
    sums = np.array([float(differences[0])])  # the other sign of the first gives the mirror image
    for value in differences[1:]:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(float(np.sum(differences)))
    tolerance = 1e-9 * float(np.sum(np.abs(differences)))
    return float(np.mean(np.abs(sums) >= observed - tolerance))


def smallest_sign_flip_p(n: int) -> float:
    """The smallest two-sided p that n seeds can give: 1/4 at 3, 1/16 at 5, 1/32 at 6."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p_values: Array) -> Array:
    """Holm's step-down adjusted p values; NaN entries (no test) stay NaN and are not counted."""
    adjusted = np.full(len(p_values), math.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def lower_limit(differences: Array, alpha: float = 0.05) -> float:
    """One-sided lower confidence limit of the mean difference; minus infinity below two seeds.

    Non-inferiority with margin m holds if it lies above -m.
    """
    n = len(differences)
    if n < 2:
        return -math.inf
    error = sample_sd(differences) / math.sqrt(n)
    return float(np.mean(differences) - stdtrit(n - 1, 1 - alpha) * error)


def one_sided_p(differences: Array, limit: float) -> float:
    """P of the one-sided t test on the side of ``limit`` that the mean lies on; NaN below two."""
    n = len(differences)
    if n < 2:
        return math.nan
    error = sample_sd(differences) / math.sqrt(n)
    return _p_value(float(np.mean(differences)) - limit, error, n) / 2


def correlation(a: Array, b: Array) -> float:
    """Correlation of the seeds' scores between two arms: what pairing gains. NaN if undefined."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])
