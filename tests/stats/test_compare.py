"""Which seeds and budgets of two arms are set against each other."""

from __future__ import annotations

import math

import pandas as pd

from bench.stats.compare import pair_curves

BASE = pd.DataFrame({100: [80.0] * 4, 200: [82.0] * 4}, index=range(4))


def variant(*at_200: float) -> pd.DataFrame:
    return pd.DataFrame({100: [81.0] * 4, 200: at_200}, index=range(4))


def test_a_budget_that_half_of_the_seeds_have_run_is_left_out() -> None:
    nan = math.nan
    base, ours = pair_curves(BASE, variant(83, 83, nan, nan), 200)
    assert ours.epochs.tolist() == [100]
    assert ours.scores.shape == (4, 1)
    assert base.scores.shape == (4, 2)


def test_a_seed_that_lacks_a_budget_of_the_rest_is_left_out() -> None:
    base, ours = pair_curves(BASE, variant(83, 84, 85, math.nan), 200)
    assert ours.epochs.tolist() == [100, 200]
    assert ours.scores[:, 1].tolist() == [83, 84, 85]
    assert base.scores.shape == (3, 2)


def test_a_failed_run_of_the_variant_scores_nothing_and_stays() -> None:
    _, ours = pair_curves(BASE, variant(83, 84, 85, -math.inf), 200)
    assert ours.scores[:, 1].tolist() == [83, 84, 85, 0]


def test_a_seed_whose_baseline_failed_at_the_target_is_left_out() -> None:
    base = BASE.copy()
    base.loc[1, 200] = -math.inf
    theirs, ours = pair_curves(base, variant(83, 84, 85, 86), 200)
    assert ours.scores[:, 1].tolist() == [83, 85, 86]
    assert theirs.scores.tolist() == [[80, 82]] * 3
