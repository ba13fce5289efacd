"""A throw-away evaluation task as an outside package would bring it: one file."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.evaluate.encoder import Encoder
from bench.evaluate.task import Score, scored


@dataclass(frozen=True, kw_only=True)
class CentroidConfig:
    """How far class means are drawn to the mean of all."""

    shrink: float = 0.0


def centroid(encoder: Encoder, recipe: CentroidConfig) -> Score:
    """Nearest class mean of the labelled images."""
    features, labels = encoder.features("mean", encoder.images.train, encoder.labelled())
    test, truth = encoder.features("mean", encoder.images.test)
    means = torch.stack([features[labels == k].mean(0) for k in range(encoder.classes)])
    means = torch.lerp(means, features.mean(0), recipe.shrink)
    return scored(torch.cdist(test, means).argmin(1) == truth, seconds=0.125)


centroid.Config = CentroidConfig  # type: ignore[attr-defined]
centroid.label = "nearest mean"  # type: ignore[attr-defined]
