from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.streams import Streams, hash_key, mix

U64 = (1 << 64) - 1


def splitmix_reference(x: int) -> int:
    """The published finaliser in plain Python integers."""
    x &= U64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & U64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & U64
    return x ^ (x >> 31)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_mix_equals_the_published_finaliser(x: int) -> None:
    assert int(mix(torch.tensor(x))) & U64 == splitmix_reference(x)


def test_known_values_do_not_change() -> None:
    """Golden: a change here means that no earlier run can be reproduced."""
    assert hash_key(0, 0, "mask", 3) == GOLDEN_KEY
    draws = Streams(0, 0).samples("mask", 3, torch.tensor([0, 1, 41])).uniform(2)
    assert [round(v, 6) for v in draws.flatten().tolist()] == GOLDEN_DRAWS
    assert Streams(0, 0).order(0, 8).tolist() == GOLDEN_ORDER


GOLDEN_KEY = 4794586892844851082
GOLDEN_DRAWS = [0.845822, 0.157685, 0.698541, 0.899362, 0.538263, 0.254376]
GOLDEN_ORDER = [2, 1, 3, 5, 4, 0, 6, 7]


def test_draws_do_not_depend_on_batching_or_history() -> None:
    streams = Streams(1, 2)
    ids = torch.arange(100)
    whole = streams.samples("mask", 5, ids).uniform(7)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    parts = [streams.samples("mask", 5, part).uniform(7) for part in ids.split(13)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[:, 3:5], streams.samples("mask", 5, ids).uniform(2, offset=3))
    assert torch.equal(whole[4:9], streams.samples("mask", 5, ids).select(slice(4, 9)).uniform(7))


@pytest.mark.parametrize("other", [("crop", 5, 2), ("mask", 6, 2), ("mask", 5, 3)])
def test_any_part_of_the_address_changes_the_draws(other: tuple[str, int, int]) -> None:
    purpose, epoch, seed = other
    ids = torch.arange(50)
    one = Streams(1, 2).samples("mask", 5, ids).uniform(4)
    two = Streams(1, seed).samples(purpose, epoch, ids).uniform(4)
    assert not (one == two).any()


def test_uniform_is_uniform_and_uncorrelated() -> None:
    draws = Streams(0, 0).samples("mask", 0, torch.arange(20000)).uniform(4).double()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, 64, 0, 1)
    expected = draws.numel() / 64
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert chi2 < 63 + 5 * (2 * 63) ** 0.5
    correlation = torch.corrcoef(torch.cat([draws, draws.roll(1, 0)], 1).T) - torch.eye(8)
    assert correlation.abs().max() < 0.04


def test_order_is_a_new_permutation_each_epoch() -> None:
    streams = Streams(0, 0)
    first, second = streams.order(0, 1000), streams.order(1, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    assert (first == second).float().mean() < 0.02


def test_scoped_seeds_library_code_and_restores_the_global_generators() -> None:
    def library() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    streams = Streams(0, 0)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = library()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with streams.scoped("augment", 1, 2):
        inside = library()
    assert library() == expected
    with streams.scoped("augment", 1, 2):
        assert library() == inside
    with streams.scoped("augment", 1, 3):
        assert library() != inside


def test_parameters_are_drawn_from_generators_of_their_names() -> None:
    """Golden, as the other streams: initial values and heads come from these."""
    streams = Streams(3, 4)

    def draw(purpose: str, name: str) -> float:
        return float(torch.rand((), generator=streams.generator(purpose, name)))

    assert draw("init", "a") == draw("init", "a")
    assert len({draw("init", "a"), draw("init", "b"), draw("head", "a")}) == 3
    found = [round(draw("init", name), 6) for name in ("a", "b")]
    assert found == GOLDEN_INITIAL


def test_keys_are_signed_and_what_library_code_draws_does_not_change() -> None:
    keys = [hash_key(0, 0, "mask", epoch) for epoch in range(40)]
    assert min(keys) < 0 < max(keys)
    assert all(-(1 << 63) <= key < 1 << 63 for key in keys)
    drawn = []
    for epoch in (keys.index(min(keys)), keys.index(max(keys))):
        with Streams(0, 0).scoped("mask", epoch):
            drawn += [random.random(), float(np.random.rand()), float(torch.rand(()))]
    assert [round(value, 6) for value in drawn] == GOLDEN_LIBRARY


def test_a_stream_knows_how_many_samples_it_has() -> None:
    ids = torch.arange(7)
    samples = Streams(0, 0).samples("mask", 0, ids)
    assert (samples.size, samples.select(slice(2, 5)).size) == (7, 3)
    assert torch.equal(samples.bits(2, offset=3), samples.bits(5)[:, 3:])


def test_draws_are_made_where_the_sample_numbers_are() -> None:
    ids = torch.arange(3, device="meta")
    assert Streams(0, 0).samples("mask", 0, ids).uniform(2).device == ids.device


GOLDEN_INITIAL = [0.92933, 0.11087]
GOLDEN_LIBRARY = [0.202827, 0.580321, 0.562118, 0.156497, 0.72373, 0.274841]
