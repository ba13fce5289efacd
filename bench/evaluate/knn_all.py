"""k-NN on every training label: the vote of :mod:`bench.evaluate.knn`, without a draw of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.evaluate.knn import KnnConfig, vote_of

if TYPE_CHECKING:
    from bench.evaluate.encoder import Encoder
    from bench.evaluate.task import Score


@dataclass(frozen=True, kw_only=True)
class KnnAllConfig(KnnConfig, section="knn_all"):
    """The vote's settings, as for the labelled images."""


def knn_all(encoder: Encoder, recipe: KnnAllConfig) -> Score:
    """Votes of all training images, whatever ``data.labels`` says."""
    return vote_of(encoder, recipe, encoder.everything())
