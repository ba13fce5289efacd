"""Recalibration: the bias, the exclusion and the schedule over depth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mto.config import MTOConfig
from mto.depth import (
    e_layers,
    entry_layers,
    evenly,
    r_schedule,
    rank_layers,
    spa_layers,
    time_strength,
)
from mto.recalibration import exclusion_bias, least_attended, recalibration_bias

HIDDEN = torch.tensor(
    [[False, True, False, True, False], [False, True, True, True, False]]
)  # a class token first; ragged


@pytest.mark.parametrize("r", [0.0, 0.3, 1.0])
def test_weights_on_masked_columns_are_scaled_by_r_and_renormalised(r):
    s = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    measured = (s + recalibration_bias(HIDDEN, r, s.dtype)).softmax(-1)
    for image in range(2):
        for i in range(5):
            weights = s[image, :, i].softmax(-1)
            if not HIDDEN[image, i]:
                scaled = torch.where(HIDDEN[image], weights * r, weights)
                weights = scaled / scaled.sum(-1, keepdim=True)
            torch.testing.assert_close(measured[image, :, i], weights)


@pytest.mark.parametrize("r", [0.0, 0.3])
@pytest.mark.parametrize("keep_self", [True, False])
@pytest.mark.parametrize("rows", ["masked", "all"])
def test_other_rows_are_scaled_alike_and_keep_their_own_column_or_not(rows, keep_self, r):
    s = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    measured = (s + recalibration_bias(HIDDEN, r, s.dtype, rows, keep_self)).softmax(-1)
    for image in range(2):
        for i in range(5):
            scale = torch.where(HIDDEN[image], r, 1.0)
            if keep_self:
                scale[i] = 1.0
            if rows == "masked" and not HIDDEN[image, i]:
                scale = torch.ones(5)
            scaled = s[image, :, i].softmax(-1) * scale
            weights = scaled / scaled.sum(-1, keepdim=True)
            torch.testing.assert_close(measured[image, :, i], weights)


def test_the_class_token_counts_as_visible_and_masked_rows_are_left_alone():
    bias = recalibration_bias(HIDDEN, 0.0, torch.float32)
    assert bias.shape == (2, 1, 5, 5)
    assert bias[0, 0, 0].tolist() == [0, -torch.inf, 0, -torch.inf, 0]
    assert (bias[0, 0, 1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bias_is_of_the_type_that_the_kernel_wants(dtype):
    received = torch.rand(2, 5)
    assert recalibration_bias(HIDDEN, 0.5, dtype).dtype == dtype
    assert exclusion_bias(received, HIDDEN, 0.5, dtype).dtype == dtype


def test_masked_rows_keep_their_own_column_unless_told_otherwise():
    """So that by default no row is shut altogether."""
    received, own = torch.rand(2, 5), torch.eye(5, dtype=torch.bool)
    for bias in (
        recalibration_bias(HIDDEN, 0.0, torch.float32, "all"),
        exclusion_bias(received, HIDDEN, 1.0, torch.float32, "all"),
    ):
        assert not bias[:, 0][:, own].any()
        assert bias.isinf().any()


def test_the_fused_kernel_takes_the_bias_and_gives_finite_gradients():
    q = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = F.scaled_dot_product_attention(q, q, q, recalibration_bias(HIDDEN, 0.0, q.dtype))
    out.sum().backward()
    assert q.grad.isfinite().all()


def test_the_least_attended_masked_columns_are_excluded():
    received = torch.tensor([[9.0, 0.2, 0.1, 0.1, 0.0], [9.0, 0.3, 0.1, 0.2, 0.0]])
    assert least_attended(received, HIDDEN, 0.5).nonzero().tolist() == [[0, 3], [1, 2], [1, 3]]
    bias = exclusion_bias(received, HIDDEN, 0.5, torch.float32)
    assert bias[0, 0, 2].tolist() == [0, 0, 0, -torch.inf, 0]
    assert (bias[0, 0, 1] == 0).all()


@pytest.mark.parametrize("rows", ["visible", "masked", "all"])
@pytest.mark.parametrize("keep_self", [True, False])
def test_excluding_all_masked_columns_is_the_bias_at_zero_for_any_rows(rows, keep_self):
    own = (torch.float32, rows, keep_self)
    assert torch.equal(
        exclusion_bias(torch.rand(2, 5), HIDDEN, 1.0, *own), recalibration_bias(HIDDEN, 0.0, *own)
    )


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_exclusion_takes_its_share_of_masked_columns_and_no_others(share, seed):
    received = torch.rand(2, 5, generator=torch.Generator().manual_seed(seed))
    dropped = least_attended(received, HIDDEN, share)
    assert not (dropped & ~HIDDEN).any()
    assert dropped.sum(1).tolist() == [round(2 * share), round(3 * share)]
    for row, out, masked in zip(received, dropped, HIDDEN, strict=True):
        if out.any() and (masked & ~out).any():
            assert row[out].max() <= row[masked & ~out].min()


# --- depth ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MTOConfig(r_first=0.0, r_depth=0.5), (0, 0, 1, 1)),
        (MTOConfig(r_first=0.2, r_depth=1.0), (0.2, 0.2, 0.2, 0.2)),
        (MTOConfig(r_shape="linear", r_first=0.0, r_depth=1.0), (0, 0.25, 0.5, 0.75)),
        (MTOConfig(r_shape="linear", r_first=0.5, r_depth=0.5), (0.5, 0.75, 1, 1)),
        (MTOConfig(r_depth=0.0), (1, 1, 1, 1)),
        (MTOConfig(recalibration="none"), (1, 1, 1, 1)),
        (MTOConfig(r_first=1.0), (1, 1, 1, 1)),
    ],
)
def test_the_schedule_is_strong_early_and_none_late(config, expected):
    assert r_schedule(config, 4) == pytest.approx(expected)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["step", "linear"]), st.integers(1, 24))
def test_every_schedule_rises_within_the_unit_interval(first, depth, shape, count):
    config = MTOConfig(r_first=first, r_depth=depth, r_shape=shape)
    schedule = r_schedule(config, count)
    assert len(schedule) == count
    assert all(0 <= r <= 1 for r in schedule)
    assert list(schedule) == sorted(schedule)


@pytest.mark.parametrize(
    ("time", "first", "middle"),
    [
        ("constant", (0.2, 0.6, 1, 1), (0.2, 0.6, 1, 1)),
        ("rising", (0.2, 0.6, 1, 1), (0.6, 0.8, 1, 1)),
        ("falling", (1, 1, 1, 1), (0.6, 0.8, 1, 1)),
    ],
)
def test_the_schedule_over_the_run(time, first, middle):
    config = MTOConfig(r_shape="linear", r_first=0.2, r_depth=0.5, r_time=time)
    assert r_schedule(config, 4, 0.0) == pytest.approx(first)
    assert r_schedule(config, 4, 0.5) == pytest.approx(middle)


def test_a_constant_schedule_is_the_same_number_all_along():
    config = MTOConfig(r_shape="linear", r_first=0.3)
    assert r_schedule(config, 12, 0.9) == r_schedule(config, 12)
    assert r_schedule(MTOConfig(r_first=0.2), 2, 0.5) == (0.2, 0.2), "to the last bit"
    assert time_strength(config, 0.3) == 1


def test_the_schedule_by_itself_is_that_of_the_runs_beginning():
    config = MTOConfig(r_first=0.2, r_time="rising")
    assert r_schedule(config, 2) == r_schedule(config, 2, 0.0) == pytest.approx((0.2, 0.2))


def test_mask_tokens_enter_at_the_nearest_layer_and_one_at_least_is_theirs():
    depths = (0.0, 0.1, 0.2, 0.375, 0.5, 0.6, 1.0)
    entries = [entry_layers(MTOConfig(enter_depth=depth), 4) for depth in depths]
    assert entries == [0, 0, 1, 2, 2, 2, 3]


def test_layers_read_by_the_losses():
    config = MTOConfig.only(["all"])
    assert spa_layers(config, 4) == (0, 1, 2, 3)
    assert e_layers(config, 4) == (0,)
    assert rank_layers(config, 4) == (0, 1, 2, 3)
    few = replace(config, spa_layers=3, e_layers=2, rank_layers=2)
    assert spa_layers(few, 12) == (0, 6, 11)
    assert e_layers(few, 12) == (0, 1)
    assert rank_layers(few, 12) == (1, 11)
    assert e_layers(replace(config, e_layers=9), 4) == (0, 1, 2, 3)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 11), st.integers(1, 24), st.integers(0, 30))
def test_evenly_spaced_layers_are_distinct_and_keep_the_ends(first, count, wanted):
    layers = evenly(first, count, wanted)
    assert len(set(layers)) == len(layers)
    assert len(layers) == (min(wanted, max(count - first, 0)) if wanted else max(count - first, 0))
    if len(layers) > 1:
        assert (layers[0], layers[-1]) == (first, count - 1)
