"""The columns beside rho: half the epochs, each pair's ratio, areas under the curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bench.stats.analysis import Analysis
from bench.stats.columns.half import half
from bench.stats.columns.pairs import pairs
from bench.stats.columns.rauc import rauc
from bench.stats.saving import Curve
from bench.stats.saving import rauc as ratio_of_areas

EPOCHS = np.array([100.0, 200.0, 400.0])
BASE = Curve(EPOCHS, np.array([[80.0, 82, 84], [79, 81, 83], [81, 83, 84], [80, 82, 85]]))
VARIANT = Curve(EPOCHS, np.array([[82.5, 84, 85], [80, 82, 83], [82, 82.5, 83.5], [80, 81, 81.5]]))
PLAN = Analysis(margin=1.5, alpha=0.1)


def test_half_the_epochs_are_set_against_the_target_budget() -> None:
    gap = VARIANT.scores[:, 1] - BASE.scores[:, 2]
    found = half(BASE, VARIANT, 400, PLAN)
    test = stats.ttest_1samp(gap, -1.5, alternative="less")
    above = stats.ttest_1samp(gap, 0, alternative="greater").confidence_interval(0.9).low
    below = stats.ttest_1samp(gap, 0, alternative="less").confidence_interval(0.9).high
    assert found["half_difference"] == pytest.approx(-1.625)
    assert found["half_base"] == pytest.approx(-2.0)
    assert found["half_sd"] == pytest.approx(np.std(gap, ddof=1))
    assert (found["half_low"], found["half_high"]) == pytest.approx((above, below))
    assert found["half_p"] == pytest.approx(test.pvalue)


def test_a_seed_whose_baseline_failed_at_half_the_epochs_leaves_its_loss_to_the_others() -> None:
    scores = BASE.scores.copy()
    scores[0, 1] = math.nan
    found = half(Curve(EPOCHS, scores), VARIANT, 400, PLAN)
    assert found["half_base"] == pytest.approx(-2.0)
    assert found["half_difference"] == pytest.approx(-1.625)


def test_a_baseline_not_run_at_half_the_epochs_has_no_loss_there() -> None:
    late = Curve(EPOCHS[1:], BASE.scores[:, 1:])
    assert half(late, VARIANT, 200, PLAN)["half_base"] is None


def test_half_of_the_smallest_budget_has_not_been_run() -> None:
    assert half(BASE, VARIANT, 100, PLAN) == {}


def test_each_pair_has_its_ratio() -> None:
    """To 82, 81, 83 and 82: below 100 epochs, half-way to 200 and to 400, and never."""
    assert pairs(BASE, VARIANT, 200, PLAN) == {"rho_pairs": "inf 1.414 0.7071 0"}


def test_areas_are_compared_on_the_budgets_of_both_and_the_seeds_that_ran_them() -> None:
    scores = np.concatenate([[[50.0], [90], [70], [60]], BASE.scores], axis=1)
    scores[1, 2] = math.nan
    wider = Curve(np.array([50.0, 100, 200, 400]), scores)
    more = Curve(np.array([100.0, 200, 400, 800]), np.c_[VARIANT.scores, np.zeros(4)])
    kept = [0, 2, 3]
    expected = ratio_of_areas(
        Curve(EPOCHS, BASE.scores[kept]), Curve(EPOCHS, VARIANT.scores[kept]), 0.1
    )
    found = rauc(wider, more, 400, PLAN)
    assert tuple(found) == ("rauc", "rauc_low", "rauc_high")
    assert tuple(found.values()) == pytest.approx(expected)


def test_two_common_budgets_have_an_area_and_one_has_none() -> None:
    two, one = (Curve(EPOCHS[:k], BASE.scores[:, :k]) for k in (2, 1))
    assert rauc(two, VARIANT, 200, PLAN)["rauc"] == pytest.approx(
        np.mean((82.5 + 84, 80 + 82, 82 + 82.5, 80 + 81) / BASE.scores[:, :2].sum(axis=1))
    )
    assert rauc(one, VARIANT, 100, PLAN) == {}
    holes = Curve(EPOCHS, np.where(EPOCHS == 100, math.nan, BASE.scores))
    assert rauc(holes, VARIANT, 200, PLAN) == {}
