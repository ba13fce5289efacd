"""When a training loss leaves its initial plateau: a pure function of the losses by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

FIRST = 0.1
"""Share of the epochs whose median loss is the plateau; three epochs at least."""

FALL = 0.1
"""Share of the whole fall from the plateau that counts as having left it."""


def leaves_plateau(losses: Sequence[float]) -> int | None:
    """The first of E epochs from which the loss stays a tenth of its whole fall below the plateau.

    The plateau is the median loss of the first tenth of the run (the very first epochs still fall
    from initialisation to the plateau), the whole fall leads from there to the lowest loss. None
    for fewer than six epochs, and for a loss that ends no lower than its plateau: data2vec's loss
    rises as its targets spread.
    """
    if len(losses) < 6:
        return None
    plateau = median(losses[: max(3, round(FIRST * len(losses)))])
    bar = plateau - FALL * (plateau - min(losses))
    if losses[-1] >= bar:
        return None
    above = [epoch for epoch, loss in enumerate(losses) if loss >= bar]
    return above[-1] + 1 if above else 0
