"""The epoch at which a loss leaves its initial plateau."""

from __future__ import annotations

import pytest

from bench.stats.plateau import leaves_plateau

FALLING = [3.0, 1.0, 1.0, 1.0, 0.99, 0.95, 0.7, 0.5, 0.3, 0.2]


def test_the_first_epoch_well_below_the_plateau() -> None:
    assert leaves_plateau(FALLING) == 6
    assert leaves_plateau([*[1.0] * 50, *[0.5] * 50]) == 50


def test_the_fall_from_initialisation_and_a_relapse_do_not_count() -> None:
    assert leaves_plateau([9.0, 1.0, 0.7, 1.0, 1.0, 1.0, 0.6, 0.5]) == 6


@pytest.mark.parametrize("losses", [[], [1.0, 0.5], [1.0] * 20, [0.1, 0.1, 0.2, 0.4, 0.5, 0.6]])
def test_no_plateau_is_left_where_the_loss_does_not_fall(losses: list[float]) -> None:
    assert leaves_plateau(losses) is None


def test_it_does_not_depend_on_the_losses_scale() -> None:
    assert leaves_plateau([7 * x + 3 for x in FALLING]) == leaves_plateau(FALLING)


@pytest.mark.parametrize(
    ("losses", "left"),
    [([1, 1, 1, 0.9, 0, 0], 4), ([1, 1, 1, 0, 0.5, 0.9], None), ([1, 1, 1, 0, 0.5, 0.89], 3)],
)
def test_a_loss_just_at_the_bar_has_not_left(losses: list[float], left: int | None) -> None:
    assert leaves_plateau(losses) == left


def test_three_epochs_are_the_plateau_of_a_short_run() -> None:
    assert leaves_plateau([10, 4, 2, 2, 3.5, 0]) == 2


def test_the_fall_is_that_from_the_plateau_to_the_lowest_loss() -> None:
    assert leaves_plateau([100, 100, 100, 99.5, 98, 90]) == 4
