from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats import power, saving
from bench.stats.means import (
    Array,
    correlation,
    estimate,
    holm,
    lower_limit,
    sign_flip_p,
    smallest_sign_flip_p,
)
from bench.stats.saving import Curve

BUDGETS = np.array([100.0, 200.0, 400.0, 800.0])
fixed = settings(derandomize=True, deadline=None, max_examples=60)
scores = st.floats(0, 100, allow_nan=False)
seeds = st.integers(2, 8)


def straight(*means: float, n: int = 5, noise: float = 0.0, draw: int = 0) -> Curve:
    """Seeds that scatter around given means at 100, 200, 400 ... epochs, exact in the mean."""
    noises = np.random.default_rng(draw).normal(0, noise, (n, len(means)))
    return Curve(BUDGETS[: len(means)], np.array(means) + noises - noises.mean(axis=0))


# --- means and tests --------------------------------------------------------------------------


def test_estimate_agrees_with_scipy() -> None:
    values = np.array([0.3, 0.1, 0.5, 0.2])
    found = estimate(values)
    reference = stats.ttest_1samp(values, 0.0)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_no_interval() -> None:
    one = estimate(np.array([2.0]))
    assert (one.mean, one.low, one.high, one.n) == (2.0, -math.inf, math.inf, 1)
    assert math.isnan(one.sd)
    assert math.isnan(one.p)


@pytest.mark.parametrize(("n", "least"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_sign_flip_p_is_exact_and_has_a_smallest_value(n: int, least: float) -> None:
    assert smallest_sign_flip_p(n) == least
    assert sign_flip_p(np.arange(1.0, n + 1)) == least


def test_sign_flip_agrees_with_scipy() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, -0.4, 0.7])
    found = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(found.pvalue)


def test_holm_on_a_worked_example() -> None:
    p = np.array([0.01, math.nan, 0.04, 0.03])
    assert holm(p) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)


def test_lower_limit_is_one_sided() -> None:
    values = np.array([-0.1, 0.0, 0.05, -0.05, 0.02])
    expected = stats.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95).low
    assert lower_limit(values) == pytest.approx(expected)
    assert lower_limit(values[:1]) == -math.inf


def test_correlation_is_undefined_without_spread() -> None:
    assert math.isnan(correlation(np.ones(5), np.arange(5.0)))
    assert correlation(np.arange(5.0), np.arange(5.0)) == pytest.approx(1)


# --- epochs to target -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "target", "expected"),
    [
        ([80, 81, 82], 81.0, ("measured", 200.0)),
        ([80, 81, 82], 81.5, ("measured", 200 * 2**0.5)),
        ([80, 81, 82], 80.0, ("measured", 100.0)),
        ([80, 81, 82], 79.0, ("beyond", 100.0)),
        ([80, 81, 82], 82.5, ("missed", math.nan)),
        ([80, 82, 81], 81.0, ("measured", 100 * 2**0.5)),
        ([80, 80, 82], 80.5, ("measured", 200 * 2**0.25)),
    ],
)
def test_epochs_to_target(curve: list[float], target: float, expected: tuple[str, float]) -> None:
    epochs = BUDGETS[:3]
    state, found = saving.epochs_to_target(epochs, np.array(curve, dtype=float), target)
    assert state == expected[0]
    assert found == pytest.approx(expected[1], nan_ok=True)


@fixed
@given(st.lists(scores, min_size=2, max_size=4, unique=True), scores)
def test_crossing_lies_inside_its_segment_and_on_the_curve(
    curve: list[float], target: float
) -> None:
    values, epochs = np.array(curve), BUDGETS[: len(curve)]
    state, found = saving.epochs_to_target(epochs, values, target)
    if state == "measured":
        assert epochs[0] <= found <= epochs[-1]
        read = float(np.interp(np.log2(found), np.log2(epochs), values))
        assert read == pytest.approx(target, abs=1e-6)
    else:
        assert (values.max() < target) == (state == "missed")


def test_interpolation_weights_read_the_curve() -> None:
    at = np.array([100.0, 141.42135623730951, 800.0])
    weights = saving.interpolation_weights(BUDGETS, at)
    assert weights @ np.array([1.0, 2.0, 3.0, 4.0]) == pytest.approx([1.0, 1.5, 4.0])


def test_known_saving_is_found() -> None:
    found = saving.saving(straight(80, 81, 82), straight(80.5, 81.5, 82.5, noise=0.05), 200)
    assert found.state == "measured"
    assert found.epochs == pytest.approx(200 / 2**0.5)
    assert found.low < found.ratio < found.high
    assert found.ratio == pytest.approx(2**0.5)


def test_interval_is_the_set_that_the_test_accepts() -> None:
    """Each end of the interval is where the paired t test turns."""
    base, variant = straight(80, 81, 82, noise=0.1), straight(80.3, 81.3, 82.3, noise=0.1, draw=1)
    found = saving.saving(base, variant, 200)
    for ratio, outward in ((found.low, 0.999), (found.high, 1.001)):
        assert _p_at(variant, base, 200 / ratio) == pytest.approx(0.05, rel=1e-3)
        assert _p_at(variant, base, 200 / (ratio / outward)) > 0.05
        assert _p_at(variant, base, 200 / (ratio * outward)) < 0.05


def _p_at(variant: Curve, base: Curve, epochs: float) -> float:
    weights = saving.interpolation_weights(variant.epochs, np.array([epochs]))
    return estimate((variant.scores @ weights.T)[:, 0] - base.scores[:, 1]).p


def test_p_of_rho_one_is_that_of_the_difference_at_equal_budgets() -> None:
    base, variant = straight(80, 81, 82, noise=0.1), straight(80.1, 81.1, 82.1, noise=0.1, draw=1)
    found = saving.saving(base, variant, 200)
    assert found.p == estimate(variant.scores[:, 1] - base.scores[:, 1]).p
    assert (found.p < 0.05) == (not found.low <= 1 <= found.high)


def test_an_arm_against_itself_is_one_exactly() -> None:
    arm = straight(80, 81, 82, noise=0.2)
    found = saving.saving(arm, arm, 200)
    assert (found.ratio, found.p) == (1.0, 1.0)
    assert found.low == found.high == 1.0


@pytest.mark.parametrize(
    ("base", "variant", "state"),
    [
        ((80, 81, 82), (81.5, 82, 83), "beyond"),
        ((80, 81, 82), (77, 78, 79), "missed"),
        ((82, 81, 82), (80, 81, 82), "flat"),
        ((81, 81, 81), (81, 81, 81), "flat"),
    ],
)
def test_censoring(base: tuple[float, ...], variant: tuple[float, ...], state: str) -> None:
    found = saving.saving(straight(*base, noise=0.05), straight(*variant, noise=0.05, draw=1), 200)
    assert found.state == state
    if state == "beyond":
        assert (found.low, found.high, found.bound) == (2.0, math.inf, 2.0)
    if state == "missed":
        assert (found.low, found.high, found.bound) == (0.0, 0.5, 0.5)


def test_an_earlier_budget_as_good_as_the_reference_makes_it_flat() -> None:
    """Also where the rise from the smallest one is beyond doubt: 400 epochs bought nothing."""
    base = straight(80, 81, 81, noise=0.01)
    base.scores[:, 2] = base.scores[:, 1]
    assert saving.saving(base, straight(80, 81, 82), 400).state == "flat"
    assert saving.saving(base, straight(80, 81, 82), 200).state == "measured"


def test_noisy_rise_counts_as_flat() -> None:
    base = straight(80.0, 80.01, 80.02, noise=0.5)
    assert saving.saving(base, straight(80, 81, 82), 200).state == "flat"


def test_open_ends_where_the_set_reaches_the_edge() -> None:
    base, noisy = straight(80, 81, 82), straight(80, 81, 82, n=3, noise=5.0)
    found = saving.saving(Curve(base.epochs, base.scores[:3]), noisy, 200)
    assert (found.low, found.high) == (0.0, math.inf)


def test_one_seed_has_a_ratio_and_no_interval() -> None:
    found = saving.saving(straight(80, 81, 82, n=1), straight(80.5, 81.5, 82.5, n=1), 200)
    assert (found.n, found.low, found.high) == (1, 0.0, math.inf)
    assert found.ratio == pytest.approx(2**0.5)


def test_one_budget_can_only_bound() -> None:
    found = saving.saving(straight(80, n=5, noise=0.1), straight(82, n=5, noise=0.1, draw=1), 100)
    assert (found.state, found.low, found.high) == ("beyond", 1.0, math.inf)


def test_no_seeds_is_said() -> None:
    nothing = Curve(BUDGETS[:2], np.empty((0, 2)))
    assert saving.saving(nothing, nothing, 100).state == "empty"


def test_a_dip_after_the_crossing_is_told() -> None:
    dip = straight(80.5, 82, 80, 83)
    assert not saving.saving(straight(80, 81, 82, 83), dip, 200).monotone


def test_missing_early_budgets_of_the_baseline_do_not_matter() -> None:
    base = straight(80, 81, 82, noise=0.1)
    holes = base.scores.copy()
    holes[0, 0] = math.nan
    variant = straight(80.5, 81.5, 82.5, noise=0.1, draw=1)
    full, part = (saving.saving(Curve(base.epochs, s), variant, 200) for s in (base.scores, holes))
    assert (full.ratio, full.low, full.high) == (part.ratio, part.low, part.high)


@st.composite
def studies(draw: st.DrawFn) -> tuple[Array, Array]:
    n, seed = draw(seeds), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    rise = np.array([80.0, 81.0, 82.0, 83.0])
    return rise + rng.normal(0, 0.3, (n, 4)), rise + rng.normal(0.2, 0.3, (n, 4))


def _saving(base: Array, variant: Array) -> saving.Saving:
    return saving.saving(Curve(BUDGETS, base), Curve(BUDGETS, variant), 400)


@fixed
@given(studies(), st.integers(0, 100))
def test_order_of_seeds_does_not_matter(study: tuple[Array, Array], seed: int) -> None:
    base, variant = study
    order = np.random.default_rng(seed).permutation(len(base))
    found, shuffled = _saving(base, variant), _saving(base[order], variant[order])
    assert found.state == shuffled.state
    assert (found.low, found.high) == pytest.approx((shuffled.low, shuffled.high))


@fixed
@given(studies(), st.floats(-50, 50))
def test_a_shift_of_all_scores_does_not_matter(study: tuple[Array, Array], shift: float) -> None:
    found, moved = _saving(*study), _saving(study[0] + shift, study[1] + shift)
    assert found.state == moved.state
    assert (found.low, found.high) == pytest.approx((moved.low, moved.high), rel=0.01)


@fixed
@given(studies())
def test_a_better_variant_never_has_a_smaller_rho(study: tuple[Array, Array]) -> None:
    base, variant = study
    found, better = _saving(base, variant), _saving(base, variant + 0.1)
    if found.state == better.state == "measured":
        assert better.ratio >= found.ratio
    assert better.low >= found.low


@fixed
@given(studies())
def test_the_ratio_lies_in_its_interval(study: tuple[Array, Array]) -> None:
    found = _saving(*study)
    if found.state == "measured" and found.monotone:
        assert found.low <= found.ratio * 1.01
        assert found.ratio <= found.high * 1.01


@fixed
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 100))
def test_holm_is_monotone_bounded_and_blind_to_order(p: list[float], seed: int) -> None:
    values = np.array(p)
    adjusted = holm(values)
    assert np.all(adjusted >= values)
    assert np.all(adjusted <= 1)
    order = np.random.default_rng(seed).permutation(len(values))
    assert holm(values[order]) == pytest.approx(adjusted[order])


# --- companions -------------------------------------------------------------------------------


def test_rauc_by_hand() -> None:
    base, variant = straight(80, 82, n=2), straight(81, 83, n=2)
    assert saving.rauc(base, variant) == pytest.approx((82 / 81,) * 3)


def test_rauc_has_the_interval_of_the_seeds_ratios() -> None:
    base, variant = straight(80, 82, 83, noise=1.0), straight(81, 83, 83, noise=1.0, draw=1)
    octaves = np.trapezoid(variant.scores, [0, 1, 2]) / np.trapezoid(base.scores, [0, 1, 2])
    expected = stats.ttest_1samp(octaves, 0.0).confidence_interval(0.9)
    found = saving.rauc(base, variant, alpha=0.1)
    assert found == pytest.approx((octaves.mean(), expected.low, expected.high))


def test_power_matches_the_noncentral_t() -> None:
    n, effect, sd = 5, 0.2, 0.1 * 2**0.5
    t = stats.t.ppf(0.975, n - 1)
    shift = effect / sd * n**0.5
    expected = stats.nct.sf(t, n - 1, shift) + stats.nct.cdf(-t, n - 1, shift)
    assert power.power_of(n, effect, sd) == pytest.approx(expected)
    assert power.power_of(1, effect, sd) == 0.0


def test_smallest_effect_has_the_power_asked_for() -> None:
    for n in (3, 5, 8):
        effect = power.smallest_effect(n, 0.14)
        assert power.power_of(n, effect, 0.14) == pytest.approx(0.8, abs=1e-6)
    assert power.smallest_effect(1, 0.14) == math.inf
    assert power.smallest_effect(5, 0.0) == 0.0
