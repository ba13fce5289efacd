"""The contract of evaluation tasks.

A task is a function ``(encoder, recipe) -> Score`` in a file of its own, its recipe (frozen
settings) at the head. The file imports without torch, so that studies are planned without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.store.correct import pack

if TYPE_CHECKING:
    from torch import Tensor

    from bench.evaluate.encoder import Encoder


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in per cent of the test images, and the seconds that training took, if any.

    ``correct`` says which images were named rightly, an entry a draw of labels, as
    :func:`bench.store.correct.pack` writes them; it may be left out.
    """

    top1: float
    seconds: float | None = None
    correct: tuple[str, ...] = ()


class Task(Protocol):
    """What a row of the registry's TASKS names."""

    def __call__(self, encoder: Encoder, recipe: Any) -> Score:
        """Scores the encoder by a recipe; the encoder stays as it is."""
        ...


def scored(correct: Tensor, seconds: float | None = None) -> Score:
    """The score of a task that named these test images [N] rightly (True) or not."""
    top1 = 100.0 * int(correct.sum()) / len(correct)
    return Score(top1, seconds, (pack(correct.cpu().numpy()),))
