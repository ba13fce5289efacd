"""The contract of evaluation tasks.

A task is a function ``(encoder, recipe) -> Score`` in a file of its own, its recipe (frozen
settings) at the head. The file imports without torch, so that studies are planned without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from bench.evaluate.encoder import Encoder


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in per cent of the test images, and the seconds that training took, if any."""

    top1: float
    seconds: float | None = None


class Task(Protocol):
    """What a row of the registry's TASKS names."""

    def __call__(self, encoder: Encoder, recipe: Any) -> Score:
        """Scores the encoder by a recipe; the encoder stays as it is."""
        ...


def share(guesses: Tensor, truth: Tensor) -> float:
    """Per cent of guessed classes [n] that are true."""
    return 100.0 * float((guesses == truth).float().mean())
