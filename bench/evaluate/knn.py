"""k-nearest-neighbour vote on frozen features, weighted by cosine similarity (arXiv 1805.01978)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.evaluate.encoder import EVAL_BATCH, Encoder


def knn(encoder: Encoder) -> float:
    """Accuracy of the cosine-weighted vote of the k nearest training images."""
    config, classes = encoder.config.knn, encoder.images.classes
    train, (queries, truth) = (encoder.features(config.pool, part) for part in ("train", "test"))
    guesses = [
        knn_vote(part, train, (config.k, config.temperature), classes)
        for part in queries.split(EVAL_BATCH)
    ]
    return 100.0 * float((torch.cat(guesses) == truth).float().mean())


def knn_vote(
    queries: Tensor, train: tuple[Tensor, Tensor], vote: tuple[int, float], classes: int
) -> Tensor:
    """Classes [Q] of queries [Q, D]: the k nearest by cosine vote with weight exp(similarity / T).

    ``vote`` is (k, T). Source of the rule: Wu et al., arXiv 1805.01978; DINO's eval_knn.py.
    """
    features, labels = train
    k, temperature = min(vote[0], len(labels)), vote[1]
    similarity = F.normalize(queries, dim=1) @ F.normalize(features, dim=1).T
    nearest, index = similarity.topk(k, dim=1)
    votes = torch.zeros(len(queries), classes, device=queries.device)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # the first is the nearest
    votes.scatter_add_(1, labels[index], weights)
    return votes.argmax(1)
