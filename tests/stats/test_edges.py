"""What the statistics give at the least number of seeds and budgets that they take."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_1samp

from bench.stats.means import (
    correlation,
    estimate,
    holm,
    lower_limit,
    one_sided_p,
    sign_flip_p,
    smallest_sign_flip_p,
    t_quantile,
)
from bench.stats.plateau import leaves_plateau
from bench.stats.power import power_of, seeds_needed, seeds_to_settle, smallest_effect
from bench.stats.saving import (
    Curve,
    area,
    epochs_to_target,
    is_flat,
    log_grid,
    ratio_interval,
    rauc,
    saving,
)


def test_one_seed_has_a_sign_flip_p_and_none_has_not() -> None:
    assert sign_flip_p(np.array([1.0])) == 1.0
    assert math.isnan(sign_flip_p(np.array([])))


def test_three_seeds_have_a_correlation_and_two_have_not() -> None:
    rising = np.array([1.0, 2.0, 4.0])
    assert correlation(rising, rising) == pytest.approx(1.0)
    assert math.isnan(correlation(rising[:2], rising[:2]))


def test_two_seeds_have_a_smallest_effect_that_they_find_with_that_power() -> None:
    effect = smallest_effect(2, 1.0, 0.8, 0.05)
    assert power_of(2, effect, 1.0, 0.05) == pytest.approx(0.8)
    assert smallest_effect(1, 1.0) == math.inf


def test_many_seeds_find_less_than_a_standard_deviation() -> None:
    effect = smallest_effect(50, 2.0)
    assert effect < 1.0
    assert power_of(50, effect, 2.0) == pytest.approx(0.8)


def test_a_one_sided_p_is_that_of_scipy() -> None:
    for differences in (np.array([-1.0, -2.5]), np.array([-1.0, -2.0, -1.5, -0.5])):
        expected = ttest_1samp(differences, -1.0, alternative="less").pvalue
        assert one_sided_p(differences, -1.0) == pytest.approx(expected)
    assert math.isnan(one_sided_p(np.array([-1.0]), 0.0))


def test_arms_that_always_differ_alike_need_two_seeds_and_equal_ones_are_never_told() -> None:
    assert seeds_to_settle(1.0, 0.0) == 2
    assert seeds_to_settle(0.0, 0.0) is None


@pytest.mark.parametrize("n", [2, 3, 5, 8, 30])
def test_power_rises_with_the_effect_to_1_however_large(n: int) -> None:
    found = [power_of(n, effect, 1.0) for effect in (0.5, 1, 2, 4, 8, 16, 32, 64, 1e3, 1e6)]
    assert found == sorted(found)
    assert found[-1] == 1.0
    assert power_of(n, -8, 1.0) == power_of(n, 8, 1.0)


def test_the_level_of_settling_is_5_per_cent_unless_said() -> None:
    assert seeds_to_settle(1.0, 2.0) == seeds_to_settle(1.0, 2.0, alpha=0.05)
    assert (seeds_to_settle(1.0, 2.0) or 0) > (seeds_to_settle(1.0, 2.0, alpha=0.1) or 0)


def test_two_seeds_can_tell_that_a_curve_rises() -> None:
    means = np.array([80.0, 82.0])
    assert not is_flat(means, np.array([2.0, 2.001]), 0.05)
    assert is_flat(means, np.array([0.0, 4.0]), 0.05)


def test_a_plateau_is_the_first_tenth_of_a_long_run() -> None:
    """Forty epochs: the median of four; a tenth of ten would be one, so at least three count."""
    losses = [10.0, 10.0, 4.0, 4.0, 4.0, 8.0, *[4.0] * 8, *[0.0] * 26]
    assert leaves_plateau(losses) == 6


def test_quantile_and_interval_start_at_two_values() -> None:
    assert t_quantile(1, 0.05) == math.inf
    assert t_quantile(2, 0.05) == pytest.approx(t.ppf(0.975, 1))
    two = estimate(np.array([1.0, 3.0]), 0.1)
    assert (two.low, two.high) == pytest.approx(ttest_1samp([1.0, 3.0], 0).confidence_interval(0.9))


def test_seeds_that_all_differ_alike_leave_no_doubt() -> None:
    assert estimate(np.full(3, 0.5)).p == 0.0
    assert estimate(np.zeros(3)).p == 1.0
    assert estimate(np.full(3, 0.5)).low == 0.5


def test_twenty_seeds_have_a_sign_flip_p_and_more_have_none() -> None:
    assert sign_flip_p(np.ones(20)) == 2 / 2**20
    assert math.isnan(sign_flip_p(np.ones(21)))


def test_equal_arms_have_the_sign_flip_p_of_1() -> None:
    assert sign_flip_p(np.zeros(3)) == 1.0


def test_no_seeds_tell_nothing() -> None:
    none = estimate(np.array([]))
    assert (none.low, none.high, none.n) == (-math.inf, math.inf, 0)
    assert all(map(math.isnan, (none.mean, none.sd, none.p)))


@pytest.mark.parametrize("differences", [[0.1, 0.2, 0.3], [1.0, -0.4, 0.7, 0.2, 0.0]])
def test_sign_flips_count_every_sum_as_large(differences: list[float]) -> None:
    """To within rounding: 0.1 + 0.2 + 0.3 is one of the sums whatever their order."""
    values = np.array(differences)
    sums = [abs(np.dot(values, signs)) for signs in itertools.product((1, -1), repeat=len(values))]
    least = abs(sum(differences)) - 1e-12
    assert sign_flip_p(values) == np.mean([s >= least for s in sums])


def test_no_p_is_above_1() -> None:
    assert [smallest_sign_flip_p(n) for n in (0, 1, 2)] == [1.0, 1.0, 0.5]
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_lower_limit_starts_at_two_seeds() -> None:
    values = np.array([0.5, 1.5])
    expected = ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95).low
    assert lower_limit(values) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [([1.0, 2, 4], [1.0, 1, 1]), ([1.0, 1, 1], [1.0, 2, 4])])
def test_an_arm_without_spread_has_no_correlation(a: list[float], b: list[float]) -> None:
    assert math.isnan(correlation(np.array(a), np.array(b)))


@pytest.mark.parametrize("effect", [0.1, 0.4, 1.0, 3.0])
def test_the_seeds_needed_are_the_fewest_that_find_it(effect: float) -> None:
    wanted = next(n for n in range(2, 1000) if power_of(n, effect, 1.0) >= 0.8)
    assert seeds_needed(effect, 1.0) == wanted
    assert math.isnan(seeds_needed(effect, math.nan))
    assert math.isnan(seeds_needed(-effect, 1.0))


@pytest.mark.parametrize(
    "gap", [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 1.64, 2.0, 2.28, -3.0]
)
def test_seeds_settle_a_limit_when_a_one_sided_test_has_the_power(gap: float) -> None:
    def finds(n: int) -> bool:
        limit = t.ppf(0.95, n - 1)
        return nct.sf(limit, n - 1, abs(gap) * math.sqrt(n)) >= 0.8

    assert seeds_to_settle(2 * gap, 2.0) == next(n for n in range(2, 1000) if finds(n))


def test_no_study_needs_more_than_a_thousand_seeds() -> None:
    """0.0886 sd is found by 1,001 seeds, which no study has."""
    at_1000 = smallest_effect(1000, 1.0)
    assert seeds_needed(at_1000 * 1.0001, 1.0) == 1000
    assert seeds_needed(at_1000 * 0.9995, 1.0) == math.inf
    assert seeds_to_settle(0.05, 1.0) is None


def test_a_grid_holds_every_budget_and_steps_of_half_a_per_cent() -> None:
    grid = log_grid(np.array([50.0, 100.0, 300.0]))
    assert (grid[0], grid[-1]) == (50.0, 300.0)
    assert 100.0 in grid
    steps = np.log2(grid[1:] / grid[:-1])
    assert steps.min() > 0
    assert 0.99 / 128 < steps.max() <= 1.01 / 128
    assert len(grid) == int(math.log2(6) * 128) + 3


def test_the_interval_ends_where_the_test_turns() -> None:
    """Each end by root finding on the two-sided test."""
    rng = np.random.default_rng(5)
    epochs = np.array([100.0, 200.0, 400.0])
    base = np.array([80.0, 82.0, 84.0]) + rng.normal(0, 0.4, (5, 3))
    ours = np.array([80.5, 82.7, 84.5]) + rng.normal(0, 0.4, (5, 3))

    def excess(log2_epochs: float) -> float:
        at = [np.interp(log2_epochs, np.log2(epochs), row) for row in ours]
        return float(ttest_1samp(np.array(at) - base[:, 1], 0).pvalue - 0.1)

    found = saving(Curve(epochs, base), Curve(epochs, ours), 200, alpha=0.1)
    middle = math.log2(found.epochs)
    first = 2 ** brentq(excess, math.log2(100), middle)
    last = 2 ** brentq(excess, middle, math.log2(400))
    assert found.low == pytest.approx(200 / last, rel=2e-5)
    assert found.high == pytest.approx(200 / first, rel=2e-5)


def test_noise_so_small_that_no_grid_point_is_accepted_still_gives_the_crossing() -> None:
    epochs = np.array([100.0, 200.0])
    base, ours = np.full((3, 2), [80.0, 82.0]), np.full((3, 2), [81.0, 83.0])
    found = saving(Curve(epochs, base), Curve(epochs, ours), 200)
    assert found.ratio == pytest.approx(2**0.5)
    assert found.low < 2**0.5 < found.high
    assert found.high / found.low == pytest.approx(2 ** (1 / 128), abs=1e-3)


def test_two_seeds_have_an_interval_and_one_has_none_in_any_number_of_studies() -> None:
    epochs, starts = np.array([100.0, 200.0]), np.array([[82.0, 82.2], [83.0, 83.1]])
    scores = np.array([[[81.0, 83.0], [81.1, 83.3]], [[82.0, 84.0], [82.2, 84.1]]])
    low, high = ratio_interval(Curve(epochs, scores), starts, 200, 0.05)
    for i in range(2):
        one = ratio_interval(Curve(epochs, scores[i]), starts[i], 200, 0.05)
        assert (low[i], high[i]) == tuple(map(float, one))
        assert 1 < low[i] < high[i] < 2
    low, high = ratio_interval(Curve(epochs, scores[:, :1]), starts[:, :1], 200, 0.05)
    assert (low.tolist(), high.tolist()) == ([0, 0], [math.inf, math.inf])


def test_a_flat_curve_has_the_p_of_the_difference_at_the_target() -> None:
    base = np.array([[80.0, 80.1], [80.0, 79.9], [80.0, 80.1]])
    ours = base + np.array([[0.0, 1.0], [0.0, 1.2], [0.0, 0.9]])
    epochs = np.array([100.0, 200.0])
    found = saving(Curve(epochs, base), Curve(epochs, ours), 200)
    assert found.state == "flat"
    assert found.p == pytest.approx(ttest_1samp([1.0, 1.2, 0.9], 0).pvalue)


def test_nothing_is_known_of_a_flat_curve_or_of_no_seeds() -> None:
    flat = Curve(np.array([100.0, 200.0]), np.full((3, 2), 80.0))
    none = Curve(flat.epochs, np.empty((0, 2)))
    for found, state in ((saving(flat, flat, 200), "flat"), (saving(none, none, 200), "empty")):
        assert (found.state, found.low, found.high, found.monotone) == (state, 0, math.inf, True)
        assert math.isnan(found.ratio)
        assert math.isnan(found.bound)


def test_a_target_is_reached_where_the_last_budget_just_meets_it() -> None:
    assert epochs_to_target(np.array([100.0, 400.0]), np.array([80.0, 82.0]), 82.0) == (
        ("measured", 400.0)
    )


def test_half_of_a_step_of_two_doublings_is_one() -> None:
    state, found = epochs_to_target(np.array([100.0, 400.0]), np.array([80.0, 82.0]), 81.0)
    assert (state, found) == ("measured", pytest.approx(200.0))


def test_a_variant_without_the_target_budget_has_no_p_and_may_have_a_ratio() -> None:
    base = np.array([[80.0, 82.0, 84.0], [80.1, 82.2, 84.1]])
    ours = base[:, [0, 2]] + [[1.0, 0.5], [1.1, 0.4]]
    variant = Curve(np.array([100.0, 400.0]), ours)
    found = saving(Curve(np.array([100.0, 200.0, 400.0]), base), variant, 200)
    assert math.isnan(found.p)
    assert found.state == "measured"
    assert found.n == 2
    assert found.target == pytest.approx(82.1)


def test_a_curve_of_one_budget_is_not_flat_by_itself() -> None:
    assert not is_flat(np.array([80.0]), np.array([0.0, 0.0]), 0.05)
    assert is_flat(np.array([80.0, 80.0]), np.array([0.0]), 0.05)
    assert not is_flat(np.array([80.0, 81.0]), np.array([1.0]), 0.05)
    assert is_flat(np.array([80.0, 81.0]), np.array([0.0, 0.0]), 0.05)


def test_flat_curves_are_told_one_by_one() -> None:
    """Rising beyond doubt, after a dip too; rising by chance; not rising in the mean."""
    means = np.array([[80.0, 81, 82], [81, 80, 82], [80, 81, 82], [80, 82, 82]])
    gain = np.array([[2.0, 2.1], [1.0, 1.1], [-20, 24], [2.0, 2.1]])
    wanted = [False, False, True, True]
    assert is_flat(means, gain, 0.05).tolist() == wanted
    each = [bool(is_flat(m, g, 0.05)) for m, g in zip(means, gain, strict=True)]
    assert each == wanted


def test_a_gain_must_pass_its_own_interval() -> None:
    gain = np.array([1.0, 2.0, 3.0])
    p = ttest_1samp(gain, 0).pvalue
    means = np.array([80.0, 82.0])
    assert is_flat(means, gain, 0.99 * p)
    assert not is_flat(means, gain, 1.01 * p)


def test_a_dip_below_the_target_counts_from_the_crossing_on_and_only_if_significant() -> None:
    epochs = np.array([100.0, 200.0, 400.0])
    base = np.full((3, 3), [80.0, 82.0, 84.0])
    falling, unsure, just, above = [81.0, 81.1, 80.9], [81.0, 83.5, 79.0], [82.0] * 3, [82.3] * 3
    for after, monotone in ((falling, False), (unsure, True), (just, True), (above, True)):
        ours = np.c_[[79.0] * 3, [83.0] * 3, after]
        found = saving(Curve(epochs, base), Curve(epochs, ours), 200)
        assert found.state == "measured"
        assert found.monotone is monotone


def test_an_area_is_the_mean_height_over_the_octaves() -> None:
    scores = np.array([[80.0, 82.0, 84.0], [80.0, 80.0, 90.0]])
    assert area(np.array([100.0, 200.0, 400.0]), scores) == pytest.approx([82.0, 82.5])
    assert area(np.array([100.0, 400.0]), scores[:, :2]) == pytest.approx([81.0, 80.0])


def test_the_level_of_a_ratio_of_areas_is_5_per_cent_unless_said() -> None:
    epochs, rng = np.array([100.0, 200.0]), np.random.default_rng(0)
    base, ours = (Curve(epochs, rng.normal(80, 1, (4, 2))) for _ in range(2))
    assert rauc(base, ours) == rauc(base, ours, alpha=0.05) != rauc(base, ours, alpha=0.1)
