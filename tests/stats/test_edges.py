"""What the statistics give at the least number of seeds and budgets that they take."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from bench.stats.analysis import Analysis
from bench.stats.means import correlation, one_sided_p, sign_flip_p
from bench.stats.plateau import leaves_plateau
from bench.stats.power import power_of, seeds_to_settle, smallest_effect
from bench.stats.saving import is_flat


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


def test_a_planned_target_has_the_largest_budget_beside_it_once() -> None:
    planned = Analysis(budgets=(50, 100, 200, 400), target_epochs=100)
    assert planned.targets([]) == [100, 400]
    assert replace(planned, target_epochs=400).targets([]) == [400]


def test_endpoints_that_were_measured_follow_the_planned_ones_once() -> None:
    planned = Analysis(endpoint="a", secondary=("b",))
    assert planned.with_measured(["b", "c", "a"]).endpoints == ["a", "b", "c"]


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
