"""The three losses, the distance and its margin, against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.mto.oracles as oracle
from mto.losses import distance_loss, initial_loss, ranking_loss, spa_loss, token_distance

UNIT = st.floats(0, 1, width=32)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(UNIT, min_size=1, max_size=6), UNIT, st.booleans())
def test_ranking_loss_equals_its_definition(h, margin, pairwise):
    form = "pairwise" if pairwise else "adjacent"
    measured = ranking_loss(torch.tensor(h, dtype=torch.float64)[:, None], margin, form)
    torch.testing.assert_close(measured.item(), oracle.ranking(h, margin, pairwise))


def test_ranking_loss_is_zero_for_a_steady_fall_and_lowers_a_rise():
    fall = torch.tensor([[0.9], [0.7], [0.5]])
    assert ranking_loss(fall, 0.1).item() == 0
    rise = torch.tensor([[0.5], [0.7]], requires_grad=True)
    ranking_loss(rise, 0.0).sum().backward()
    assert rise.grad.flatten().tolist() == [-1, 1]


def test_ranking_loss_takes_each_image_by_itself():
    """One image's rise is not hidden by another's fall."""
    h = torch.tensor([[0.5, 0.9], [0.9, 0.5]])
    torch.testing.assert_close(ranking_loss(h, 0.0), torch.tensor([0.4, 0.0]))


def test_spa_and_initial_loss_are_means_over_layers():
    values = torch.tensor([[0.2, 0.4], [0.6, 0.0]])
    torch.testing.assert_close(spa_loss(values), torch.tensor([0.4, 0.2]))
    torch.testing.assert_close(initial_loss(values), torch.tensor([0.6, 0.8]))


def test_the_other_sign_turns_each_loss_round():
    values = torch.tensor([[0.2, 0.4], [0.6, 0.0]])
    torch.testing.assert_close(spa_loss(values, "high"), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(initial_loss(values, "low"), torch.tensor([0.4, 0.2]))
    rising = ranking_loss(values, 0.1, sign="rising")
    torch.testing.assert_close(rising, ranking_loss(values.flip(0), 0.1))


@pytest.mark.parametrize("form", ["standardised", "isotropic"])
def test_distance_equals_its_definition(form):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 7, 5, generator=generator) * torch.arange(1.0, 6.0)
    token = torch.randn(1, 1, 5, generator=generator)
    expected = [
        oracle.distance(image.tolist(), token.flatten().tolist(), form == "isotropic")
        for image in tokens
    ]
    torch.testing.assert_close(token_distance(tokens, token, form), torch.tensor(expected))


def test_the_isotropic_distance_does_not_depend_on_the_axes():
    generator = torch.Generator().manual_seed(0)
    tokens, token = torch.randn(2, 6, 4, generator=generator), torch.ones(1, 1, 4)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    torch.testing.assert_close(
        token_distance(tokens @ turn, token @ turn, "isotropic"),
        token_distance(tokens, token, "isotropic"),
    )


def test_only_the_mask_token_is_moved_and_it_moves_away():
    """Else the patch embeddings could meet the margin by collapsing."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 9, 6, generator=generator, requires_grad=True)
    token = torch.full((1, 1, 6), 0.1, requires_grad=True)
    before = token_distance(tokens, token)
    distance_loss(before, 3.0).mean().backward()
    assert tokens.grad is None
    moved = token.detach() - 0.1 * token.grad
    assert (token_distance(tokens, moved).mean() > before.mean()).item()


def test_the_margin_loss_is_silent_once_the_margin_is_met():
    distance = torch.tensor([0.0, 1.5, 3.0, 30.0], requires_grad=True)
    loss = distance_loss(distance, 3.0)
    assert loss.tolist() == [1.0, 0.5, 0.0, 0.0]
    loss.sum().backward()
    assert distance.grad[3] == 0


@pytest.mark.parametrize("form", ["standardised", "isotropic"])
def test_a_token_beside_a_uniform_image_is_far_away(form):
    distance = token_distance(torch.zeros(2, 5, 4), torch.ones(1, 1, 4), form)
    assert distance.isfinite().all()
    assert (distance > 100).all()


def test_a_uniform_image_and_a_token_at_the_centre_give_finite_gradients():
    token = torch.zeros(1, 1, 4, requires_grad=True)
    distance_loss(token_distance(torch.zeros(2, 5, 4), token), 3.0).sum().backward()
    assert token.grad.isfinite().all()
