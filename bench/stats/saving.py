"""Epochs to target: pure functions on arrays, no files, no clock, no random draws.

Legend of shapes: n seeds (one row each, the same seeds in both arms), B budgets, G grid points,
... any number of leading axes (used by the simulation that verifies the interval).

The quantity is rho(A) = E_base(A) / E_variant(A), the ratio of the epochs the two arms need to
reach the accuracy A, with A the baseline's mean at the reference budget. Curves are linear in
log2(epochs) between neighbouring budgets and are never extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.stats.means import Array, estimate, one_sided_p, t_quantile

Flags = npt.NDArray[np.bool_]
Points = npt.NDArray[np.intp]

GRID_PER_OCTAVE = 128
"""Points a doubling of epochs on which the test is inverted; between two it is read straight."""

State = Literal["measured", "beyond", "missed", "flat", "empty"]
"""How a target was met: inside the budgets, already at the smallest one, never; ``flat`` when the
baseline's curve does not rise to the target, ``empty`` when there is no pair of seeds."""


@dataclass(frozen=True)
class Curve:
    """Last-epoch scores [..., n, B] of one arm at rising budgets ``epochs`` [B].

    A run that diverged scores 0. Where there is one, ``spared`` has the arm's lowest finished score
    of that budget in its place: the outlier 0 would drown in spread what the other seeds tell
    against the arm.
    """

    epochs: Array
    scores: Array
    spared: Array | None = None


@dataclass(frozen=True)
class Saving:
    """rho at one target. ``low`` is 0 and ``high`` infinite where the interval is open.

    ``epochs`` is NaN unless the target is met inside the budgets. ``bound`` is the factor that is
    certain to be passed in state ``beyond`` (not passed in state ``missed``). ``monotone`` is False
    if the variant reaches the target and lies significantly below it at a larger budget.
    """

    state: State
    target: float
    reference: float
    n: int
    epochs: float = math.nan
    ratio: float = math.nan
    low: float = 0.0
    high: float = math.inf
    p: float = math.nan
    bound: float = math.nan
    monotone: bool = True


def epochs_to_target(epochs: Array, scores: Array, target: float) -> tuple[State, float]:
    """First epochs at which a curve reaches the target, linear in log2 in the bracketing segment.

    Args:
        epochs: rising budgets [B].
        scores: accuracy at each of them [B].
        target: accuracy to reach.

    Returns:
        ``measured`` and the epochs; ``beyond`` and the smallest budget, if that one already lies
        above the target; ``missed`` and NaN.
    """
    reached = np.flatnonzero(scores >= target)
    if len(reached) == 0:
        return "missed", math.nan
    first = int(reached[0])
    if first == 0:
        return ("measured" if scores[0] == target else "beyond"), float(epochs[0])
    before, after = scores[first - 1], scores[first]
    share = float((target - before) / (after - before))
    low, high = np.log2(epochs[first - 1]), np.log2(epochs[first])
    if share == 1.0:
        return "measured", float(epochs[first])
    crossing = 2.0 ** (low + share * (high - low))  # rounding may leave the segment
    return "measured", float(np.clip(crossing, epochs[first - 1], epochs[first]))


def log_grid(epochs: Array, per_octave: int = GRID_PER_OCTAVE) -> Array:
    """Log-spaced epochs [G] from the smallest to the largest budget, every budget among them."""
    octaves = np.log2(epochs[-1] / epochs[0])
    even = np.linspace(np.log2(epochs[0]), np.log2(epochs[-1]), int(octaves * per_octave) + 2)
    inner = 2.0 ** even[1:-1]
    return np.unique(np.concatenate([epochs.astype(np.float64), inner]))


def interpolation_weights(epochs: Array, at: Array) -> Array:
    """Matrix [G, B] that turns scores at the budgets into scores at ``at``, linear in log2."""
    x = np.log2(epochs)
    identity = np.eye(len(epochs))
    return np.stack([np.interp(np.log2(at), x, row) for row in identity], axis=1)


def paired_t(scores: Array, reference: Array, weights: Array) -> tuple[Array, Array]:
    """Mean [..., G] and standard error [..., G] of u_i(E') = interp(variant_i)(E') - base_i(ref).

    Args:
        scores: the variant's scores [..., n, B].
        reference: the baseline's scores at the reference budget [..., n].
        weights: interpolation matrix [G, B].
    """
    u = scores @ weights.T - reference[..., None]
    n = scores.shape[-2]
    return u.mean(axis=-2), u.std(axis=-2, ddof=1) / math.sqrt(n)


def accepted(mean: Array, gap: Array) -> Flags:
    """Grid points [..., G] that the paired t test does not reject, or next to a zero of the mean.

    The points beside a sign change belong to the set whatever the noise: the mean is 0 there.

    Args:
        mean: mean difference [..., G].
        gap: by how much its size exceeds what the test accepts [..., G].
    """
    inside = gap <= 0
    crossing = np.sign(mean[..., :-1]) * np.sign(mean[..., 1:]) < 0
    inside[..., :-1] |= crossing
    inside[..., 1:] |= crossing
    return inside


def is_flat(means: Array, gain: Array, alpha: float) -> Flags:
    """Whether a baseline's curve fails to rise to its reference budget.

    It does if an earlier budget is as good in the mean, or if the gain from the smallest budget is
    not significant. Epochs to a target on such a curve are noise.

    Args:
        means: the baseline's means [..., k] at its budgets up to the reference, which is the last.
        gain: seed-wise gain [..., n] from the smallest budget to the reference.
        alpha: level of the two-sided test.
    """
    n = gain.shape[-1]
    reached = np.any(means[..., :-1] >= means[..., -1:], axis=-1)
    if n < 2 or means.shape[-1] < 2:
        return np.asarray(reached)
    error = gain.std(axis=-1, ddof=1) / math.sqrt(n)
    return np.asarray(reached | (gain.mean(axis=-1) <= t_quantile(n, alpha) * error))


def saving(base: Curve, variant: Curve, reference: float, alpha: float = 0.05) -> Saving:
    """Rho at the baseline's mean accuracy at budget ``reference``, with its interval.

    Args:
        base: the baseline; ``reference`` is one of its budgets, complete; others may hold NaN.
        variant: the variant on the same seeds, complete.
        reference: budget that sets the target.
        alpha: 1 - coverage.
    """
    n = len(variant.scores)
    if n == 0 or len(variant.epochs) == 0:
        return Saving("empty", math.nan, reference, 0)
    start = base.scores[:, base.epochs == reference][:, 0]
    target = float(np.mean(start))
    p = _equal_p(variant, start, reference, alpha)
    if _curve_is_flat(base, reference, alpha) or _rise_unknown(base, variant, reference):
        return Saving("flat", target, reference, n, p=p)
    means = np.mean(variant.scores, axis=0)
    state, epochs = epochs_to_target(variant.epochs, means, target)
    low, high = ratio_interval(variant, start, reference, alpha)
    if variant.spared is not None:
        spared = Curve(variant.epochs, variant.spared)
        high = np.minimum(high, ratio_interval(spared, start, reference, alpha)[1])
    edge = {"beyond": variant.epochs[0], "missed": variant.epochs[-1]}.get(state, math.nan)
    return Saving(
        state=state,
        target=target,
        reference=reference,
        n=n,
        epochs=epochs if state == "measured" else math.nan,
        ratio=reference / epochs if state == "measured" else math.nan,
        low=float(low),
        high=float(high),
        p=p,
        bound=float(reference / edge),
        monotone=not _falls_back(variant, start, epochs, alpha),
    )


def _equal_p(variant: Curve, start: Array, reference: float, alpha: float) -> float:
    """Two-sided p of equal accuracy at the reference budget; NaN if the variant lacks it."""
    at = variant.epochs == reference
    return estimate(against(variant, at, start, 0.0), alpha).p if at.any() else math.nan


def against(variant: Curve, at: Flags, start: Array, limit: float) -> Array:
    """Differences [n] from ``start`` at one budget, as they tell most against a variant below.

    Of the two ways to count a run that diverged it is the one whose test is the surer, where both
    means lie below ``limit``; above it such a run scores 0.
    """
    counted = variant.scores[:, at][:, 0] - start
    if variant.spared is None or counted.mean() >= limit:
        return counted
    spared = variant.spared[:, at][:, 0] - start
    surer = one_sided_p(spared, limit) < one_sided_p(counted, limit)
    return spared if spared.mean() < limit and surer else counted


def _falls_back(variant: Curve, start: Array, epochs: float, alpha: float) -> bool:
    """Whether the variant, once at the target, lies significantly below it at a larger budget."""
    later = variant.scores[:, variant.epochs >= epochs] - start[:, None]
    return any(estimate(gap, alpha).high < 0 for gap in later.T)


def _curve_is_flat(base: Curve, reference: float, alpha: float) -> bool:
    scores = _until(base, reference)
    gain = scores[:, -1] - scores[:, 0]
    return bool(is_flat(np.nanmean(scores, axis=0), gain[~np.isnan(gain)], alpha))


def _rise_unknown(base: Curve, variant: Curve, reference: float) -> bool:
    """Whether epochs could be saved, of several seeds, against a rise that was not measured."""
    alone = _until(base, reference).shape[1] == 1
    return bool(len(base.scores) > 1 and alone and variant.epochs[0] < reference)


def _until(base: Curve, reference: float) -> Array:
    """Scores up to the reference budget, at those budgets that more than half of the seeds have."""
    scores = base.scores[:, base.epochs <= reference]
    return scores[:, np.count_nonzero(~np.isnan(scores), axis=0) * 2 > len(scores)]


def ratio_interval(
    variant: Curve, start: Array, reference: float, alpha: float
) -> tuple[Array, Array]:
    """Ends [...] of rho's interval; 0 and infinity where it is open.

    The interval inverts the paired t test: E' belongs to the set if the variant at E' does not
    differ significantly from the baseline at the reference budget, seed by seed.

    Args:
        variant: scores [..., n, B].
        start: the baseline's scores [..., n] at the reference budget.
        reference: that budget.
        alpha: 1 - coverage.
    """
    n = start.shape[-1]
    if n < 2:
        return np.zeros(start.shape[:-1]), np.full(start.shape[:-1], math.inf)
    grid = log_grid(variant.epochs)
    mean, error = paired_t(variant.scores, start, interpolation_weights(variant.epochs, grid))
    first, last = bounds(np.abs(mean) - t_quantile(n, alpha) * error, mean, grid)
    with np.errstate(divide="ignore"):
        return np.asarray(reference / last), np.asarray(reference / first)


def bounds(gap: Array, mean: Array, grid: Array) -> tuple[Array, Array]:
    """First and last epochs [...] of each set's hull; 0 and infinity where it is open.

    It is open below if the smallest budget is accepted or already above the target, open above if
    the largest is accepted or still below it. An empty set lies wholly on one side.
    """
    inside = accepted(mean, gap)
    empty = ~inside.any(axis=-1)
    above, below = mean[..., 0] > 0, mean[..., -1] < 0
    start = np.asarray(inside.argmax(axis=-1))
    end = np.asarray(len(grid) - 1 - inside[..., ::-1].argmax(axis=-1))
    first = _turn(gap, grid, start, np.maximum(start - 1, 0))
    last = _turn(gap, grid, end, np.minimum(end + 1, len(grid) - 1))
    first = np.where(inside[..., 0] | above, 0.0, np.where(empty, grid[-1], first))
    last = np.where(inside[..., -1] | below, math.inf, np.where(empty, grid[0], last))
    return first, last


def _turn(gap: Array, grid: Array, inner: Points, outer: Points) -> Array:
    """Epochs [...] at which the test turns, between a grid point accepted and one rejected."""
    kept, lost = (np.take_along_axis(gap, i[..., None], axis=-1)[..., 0] for i in (inner, outer))
    turns = (kept <= 0) & (lost > 0)
    share = np.divide(kept, kept - lost, out=np.zeros_like(kept), where=turns)
    return np.asarray(grid[inner] * (grid[outer] / grid[inner]) ** share)


def pair_ratios(variant: Curve, start: Array, reference: float) -> list[float]:
    """Rho of each pair of seeds: to what the baseline's seed reached at the reference budget.

    Infinite where the variant's seed is above that at its smallest budget, 0 where it misses it.
    """
    ends = {"beyond": math.inf, "missed": 0.0}
    pairs = zip(variant.scores, start, strict=True)
    met = (epochs_to_target(variant.epochs, scores, target) for scores, target in pairs)
    return [ends.get(state, reference / epochs) for state, epochs in met]


def area(epochs: Array, scores: Array) -> Array:
    """Area [n] under accuracy against log2(epochs), divided by the width."""
    x = np.log2(epochs)
    widths = np.diff(x)
    return np.asarray((scores[:, :-1] + scores[:, 1:]) @ widths / 2 / (x[-1] - x[0]))


def rauc(base: Curve, variant: Curve, alpha: float = 0.05) -> tuple[float, float, float]:
    """Ratio of the areas under the accuracy curves, variant over baseline, seed by seed.

    Both curves hold the same budgets, at least two. Returns the mean and the ends of its interval.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a baseline at 0 everywhere has no ratio
        ratios = area(variant.epochs, variant.scores) / area(base.epochs, base.scores)
    found = estimate(ratios, alpha)
    return found.mean, found.low, found.high
