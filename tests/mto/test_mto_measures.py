"""Affinity, heterogeneity and mass against loops, on ragged masks; the traps of the measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.mto.oracles as oracle
from bench.api import TokenLayer
from mto.affinity import _pick, everywhere, patch_sets, places, sample_heads, sample_images
from mto.config import MTOConfig
from mto.heterogeneity import (
    cosine_heterogeneity,
    entropy_heterogeneity,
    mass,
    row_entropy,
    row_mean,
)
from mto.reading import heterogeneity, leak, view, weight_received

IMAGES = torch.tensor([0, 2, 3])


def layer_of(seed=0, prefix=1, bias="heads", size=4, tokens=9, heads=3):
    """A random layer with ragged masks: image b hides b + 2 patches."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = torch.zeros(size, tokens, dtype=torch.bool)
    for image in range(size):
        order = torch.randperm(tokens - prefix, generator=generator) + prefix
        hidden[image, order[: image + 2]] = True
    shapes = {"heads": (1, heads), "images": (size, 1), "both": (size, heads)}
    own = randn(*shapes[bias], tokens, tokens) if bias else None
    query, key = randn(size, heads, tokens, 5), randn(size, heads, tokens, 5)
    x = randn(size, tokens, 15)
    return TokenLayer(1, 4, x, query, key, hidden, prefix, 5**-0.5, own)


def compare(measured, expected):
    torch.testing.assert_close(measured.double(), torch.tensor(expected, dtype=torch.float64))


def maps(config, layer, image, added=None):
    """Oracle affinities of an image, one a head where heads are kept apart."""
    if config.affinity == "tokens":
        return [oracle.token_affinity(layer, image)]
    if config.heads == "average":
        return [oracle.mean_logits(layer, image, added)]
    heads = range(layer.query.shape[1])
    return [oracle.logits(layer, image, head, added) for head in heads]


READINGS = [
    MTOConfig(),
    MTOConfig(heads="each"),
    MTOConfig(affinity="tokens"),
    MTOConfig(tau=1.0),
]


@pytest.mark.parametrize("config", READINGS, ids=lambda c: f"{c.affinity}-{c.heads}-{c.tau}")
@pytest.mark.parametrize("bias", [None, "heads", "images", "both"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_heterogeneity_and_mass_equal_their_definitions(config, bias, prefix):
    layer = layer_of(bias=bias, prefix=prefix)
    at = view(layer.hidden, prefix, IMAGES)
    added = torch.linspace(-1, 1, 4 * 81, dtype=torch.float64).view(4, 1, 9, 9)
    h, lost = [], []
    for image in IMAGES.tolist():
        masked, visible = oracle.sets(layer, image)
        plain = maps(config, layer, image)
        each = [oracle.heterogeneity(s, masked, visible, config.tau) for s in plain]
        h.append(sum(each) / len(each))
        biased = maps(config, layer, image, added)
        each = [oracle.mass(s, masked, visible) for s in biased]
        lost.append(sum(each) / len(each))
    compare(heterogeneity(config, layer, at), h)
    compare(leak(config, layer, at, added, None), lost)


def test_cosine_heterogeneity_equals_its_definition():
    layer = layer_of()
    at = view(layer.hidden, layer.prefix, IMAGES)
    expected = [
        oracle.cosine_heterogeneity(layer.tokens[i], *oracle.sets(layer, i))
        for i in IMAGES.tolist()
    ]
    compare(heterogeneity(MTOConfig(heterogeneity="cosine"), layer, at), expected)


def test_row_entropy_form_equals_its_definition():
    layer = layer_of()
    at = view(layer.hidden, layer.prefix, IMAGES)
    expected = [
        oracle.visible_row_entropy(oracle.mean_logits(layer, i), oracle.sets(layer, i)[1])
        for i in IMAGES.tolist()
    ]
    compare(leak(MTOConfig(spa_form="row_entropy"), layer, at, None, None), expected)


def rows_of(layer, image, which):
    masked, visible = oracle.sets(layer, image)
    return {"masked": masked, "visible": visible, "all": sorted(masked + visible)}[which]


@pytest.mark.parametrize("which", ["masked", "all"])
def test_mass_of_other_rows_leaves_their_own_column_out(which):
    layer = layer_of()
    at = view(layer.hidden, layer.prefix, IMAGES)
    expected = []
    for i in IMAGES.tolist():
        s, masked = oracle.mean_logits(layer, i), oracle.sets(layer, i)[0]
        rows = rows_of(layer, i, which)
        lost = [sum(oracle.softmax(s[r])[j] for j in masked if j != r) for r in rows]
        expected.append(sum(lost) / len(lost))
    compare(leak(MTOConfig(spa_rows=which), layer, at, None, None), expected)


@pytest.mark.parametrize("which", ["visible", "masked", "all"])
def test_row_entropy_over_visible_columns_equals_its_definition(which):
    layer = layer_of()
    at = view(layer.hidden, layer.prefix, IMAGES)
    expected = []
    for i in IMAGES.tolist():
        s, visible = oracle.mean_logits(layer, i), oracle.sets(layer, i)[1]
        rows = rows_of(layer, i, which)
        expected.append(oracle.heterogeneity(s, rows, visible, 1.0))
    config = MTOConfig(spa_form="row_entropy", spa_rows=which, spa_columns="visible")
    compare(leak(config, layer, at, None, None), expected)


def test_chosen_heads_are_the_ones_read():
    layer, config = layer_of(bias="both"), MTOConfig(heads="each")
    at = view(layer.hidden, layer.prefix, IMAGES)
    heads = torch.tensor([[2, 0], [1, 2], [0, 1]])
    expected = []
    for image, chosen in zip(IMAGES.tolist(), heads.tolist(), strict=True):
        masses = [
            oracle.mass(oracle.logits(layer, image, head), *oracle.sets(layer, image))
            for head in chosen
        ]
        expected.append(sum(masses) / len(masses))
    compare(leak(config, layer, at, None, heads), expected)


@pytest.mark.parametrize("which", ["visible", "masked", "all"])
def test_weight_received_equals_its_definition(which):
    layer = layer_of()
    at = view(layer.hidden, layer.prefix, IMAGES)
    expected = []
    for image in IMAGES.tolist():
        s = oracle.mean_logits(layer, image)
        rows = {i: oracle.softmax(s[i]) for i in rows_of(layer, image, which)}
        received = [sum(row[j] for i, row in rows.items() if i != j) for j in range(9)]
        expected.append(received)
    compare(weight_received(MTOConfig(rows=which), layer, at), expected)


def test_other_images_and_padding_do_not_enter():
    """An image's value is the same alone and beside images with other counts."""
    layer, config = layer_of(), MTOConfig()
    together = heterogeneity(config, layer, view(layer.hidden, 1, torch.arange(4)))
    for image in range(4):
        alone = heterogeneity(config, layer, view(layer.hidden, 1, torch.tensor([image])))
        torch.testing.assert_close(alone[0], together[image])


@pytest.mark.parametrize("fill", [True, False])
def test_images_without_masked_or_without_visible_patches_give_finite_gradients(fill):
    layer = layer_of(bias=None)
    layer.hidden[1, 1:] = fill
    query = layer.query.clone().requires_grad_()
    layer = replace(layer, query=query)
    at = view(layer.hidden, 1, torch.arange(4))
    (
        heterogeneity(MTOConfig(), layer, at) + leak(MTOConfig(), layer, at, None, None)
    ).sum().backward()
    assert query.grad.isfinite().all()


def test_an_image_of_one_masked_and_two_visible_patches_is_measured_as_any_other():
    row, both = torch.zeros(1, 1, 2, 3), torch.tensor([[True, True, False]])
    assert row_entropy(row, both).tolist() == [[[1.0, 1.0]]], "two equal columns are undecided"
    assert row_entropy(row, both & (torch.arange(3) < 1)).tolist() == [[[0.0, 0.0]]]
    one = torch.tensor([[False, True]])
    assert row_mean(torch.tensor([[[0.2, 0.6]]]), one).tolist() == pytest.approx([0.6])
    x = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    for masked in (torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])):
        parts = [torch.nonzero(m[0]).flatten().tolist() for m in (masked, ~masked)]
        expected = oracle.cosine_heterogeneity(x[0], *parts)
        compare(cosine_heterogeneity(x, masked, ~masked), [expected])


@pytest.mark.parametrize("size", [1, 2])
def test_each_image_of_a_small_batch_has_its_own_bias(size):
    layer = layer_of(bias="both", size=size)
    at = view(layer.hidden, 1, torch.arange(size))
    sets = [oracle.sets(layer, i) for i in range(size)]
    expected = [
        oracle.heterogeneity(oracle.mean_logits(layer, i), *sets[i], 0.1) for i in range(size)
    ]
    compare(heterogeneity(MTOConfig(), layer, at), expected)


# --- places and sampling ----------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_places_lists_the_marked_positions(rows):
    marked = torch.tensor(rows)
    found = places(marked)
    for index, valid, row in zip(found.index, found.valid, rows, strict=True):
        assert index[valid].tolist() == [t for t, flag in enumerate(row) if flag]
        assert len(set(index.tolist())) == len(index)


def test_no_images_have_no_places():
    assert places(torch.zeros(0, 5, dtype=torch.bool)).index.shape == (0, 0)


def test_the_prefix_is_neither_masked_nor_visible():
    hidden = torch.tensor([[False, True, False]])
    masked, visible = patch_sets(hidden, 1)
    assert masked.tolist() == [[False, True, False]]
    assert visible.tolist() == [[False, False, True]]


def test_images_below_the_share_are_chosen():
    draws = torch.tensor([0.3, 0.0, 0.25, 0.9, 0.2])
    assert sample_images(draws, 0.25).tolist() == [1, 4]
    assert sample_images(draws, 1.0).tolist() == [0, 1, 2, 3, 4]


def test_heads_are_chosen_evenly_and_without_repeats():
    draws = torch.arange(1000) / 1000
    chosen = sample_heads(draws, 5, 2)
    assert chosen.shape == (1000, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert torch.bincount(chosen.flatten()).tolist() == [400] * 5
    assert sample_heads(torch.tensor([0.99]), 5, 3).tolist() == [[4, 0, 1]]


# --- traps (measured on toy models before any of this was written) ----------------------------


def test_distinct_mask_tokens_raise_entropy_over_visible_columns_only():
    """Over all columns the sign turns: distinct mask tokens attend to each other."""
    visible = 2 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    visible[:, -1] = 0
    orthogonal = 6 * torch.eye(32)[-1]

    def entropies(token):
        x = torch.cat([token.expand(16, 32), visible])[None]
        s = (x @ x.mT / 32**0.5)[:, None, :16]
        over_all = row_entropy(s, torch.ones(1, 32, dtype=torch.bool))
        over_visible = row_entropy(s[..., 16:], torch.ones(1, 16, dtype=torch.bool))
        return over_visible.mean(), over_all.mean()

    alike, distinct = entropies(visible[0]), entropies(orthogonal)
    assert distinct[0] > alike[0] + 0.5
    assert distinct[1] < alike[1]


def test_at_tau_one_the_entropy_of_small_logits_is_saturated_and_a_temperature_wakes_it():
    s = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    on = torch.ones(2, 8, dtype=torch.bool)
    assert entropy_heterogeneity(s, on, on, 1.0).min() > 0.97
    assert entropy_heterogeneity(s, on, on, 0.1).max() < 0.8


@pytest.mark.parametrize("form", ["mass", "row_entropy"])
def test_only_the_mass_form_frees_visible_rows_when_masked_logits_start_higher(form):
    """The row-entropy form drives attention onto masked columns, the mass form drives it off."""
    on, hidden = torch.ones(1, 8, dtype=torch.bool), torch.arange(8)[None] < 4
    s = torch.zeros(1, 1, 8, 8)
    s[..., :2] = 1.0
    s.requires_grad_()
    optimizer = torch.optim.SGD([s], lr=5.0)
    for _ in range(400):
        given = mass(s, on, on, hidden[:, None])
        loss = given if form == "mass" else row_entropy(s, on).mean(-1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    given = mass(s, on, on, hidden[:, None]).item()
    assert given < 0.01 if form == "mass" else given > 0.9


def test_a_column_shut_out_by_recalibration_has_no_mass_and_a_finite_entropy():
    s = torch.zeros(1, 1, 4, 4)
    s[..., 0] = -torch.inf
    s.requires_grad_()
    on, hidden = torch.ones(1, 4, dtype=torch.bool), torch.arange(4)[None] == 0
    given, entropy = mass(s, on, on, hidden[:, None]), row_entropy(s, on)
    assert given.item() == 0
    (entropy.sum() + given.sum()).backward()
    assert s.grad.isfinite().all()


def test_heads_are_picked_where_there_are_several():
    x, heads = torch.arange(12.0).reshape(2, 2, 3, 1), torch.tensor([[1], [0]])
    assert torch.equal(_pick(x, heads), torch.stack([x[0, 1:], x[1, :1]]))
    assert torch.equal(_pick(x, None), x)
    shared = x[:, :1]
    assert torch.equal(_pick(shared, heads), shared), "one for all heads"


def test_places_lie_on_the_device_of_what_they_mark():
    meta = torch.device("meta")
    every = everywhere(2, 3, meta)
    assert {every.index.device, every.valid.device} == {meta}
    assert {part.device for part in patch_sets(torch.zeros(2, 3, device=meta).bool(), 1)} == {meta}
