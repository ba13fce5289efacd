"""k-NN: the cosine-weighted vote of the nearest labelled training images.

Source of the rule: Wu et al., arXiv 1805.01978; DINO's eval_knn.py. Q queries, n training images,
D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.api.rules import Count, Positive, Ruled
from bench.evaluate.task import Score, scored

if TYPE_CHECKING:
    from torch import Tensor

    from bench.evaluate.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class KnnConfig(Ruled, section="knn"):
    """Weighted k-nearest-neighbour vote on frozen features, cosine similarity."""

    k: Count = 20
    temperature: Positive = 0.07
    pool: Literal["mean", "cls"] = "mean"


def knn(encoder: Encoder, recipe: KnnConfig) -> Score:
    """Votes of the images whose labels may be seen (``data.labels``)."""
    return vote_of(encoder, recipe, encoder.labelled())


def vote_of(encoder: Encoder, recipe: KnnConfig, subset: Tensor) -> Score:
    """Votes of the training images ``subset`` on every test image."""
    import torch

    from bench.evaluate.encoder import EVAL_BATCH

    train = encoder.features(recipe.pool, encoder.images.train, subset)
    queries, truth = encoder.features(recipe.pool, encoder.images.test)
    vote = (recipe.k, recipe.temperature)
    parts = [knn_vote(part, train, vote, encoder.classes) for part in queries.split(EVAL_BATCH)]
    return scored(torch.cat(parts) == truth)


def knn_vote(
    queries: Tensor, train: tuple[Tensor, Tensor], vote: tuple[int, float], classes: int
) -> Tensor:
    """Classes [Q] of queries [Q, D]: the k nearest by cosine vote with weight exp(similarity / T).

    ``train`` is features [n, D] and labels [n]; ``vote`` is (k, T).
    """
    import torch
    from torch.nn.functional import normalize

    features, labels = train
    k, temperature = min(vote[0], len(labels)), vote[1]
    similarity = normalize(queries, dim=1) @ normalize(features, dim=1).T
    nearest, index = similarity.topk(k, dim=1)
    votes = torch.zeros(len(queries), classes, device=queries.device)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # the first is the nearest
    votes.scatter_add_(1, labels[index], weights)
    return votes.argmax(1)
