"""An evaluation task: each test image gets the class whose mean feature is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.api.rules import Ruled, Share

if TYPE_CHECKING:
    from bench.evaluate.encoder import Encoder
    from bench.evaluate.task import Score


@dataclass(frozen=True, kw_only=True)
class CentroidConfig(Ruled, section="centroid"):
    """How far class means are drawn to the mean of all."""

    shrink: Share = 0.0


def centroid(encoder: Encoder, recipe: CentroidConfig) -> Score:
    """Nearest class mean of the labelled images."""
    import torch

    from bench.evaluate.task import scored

    features, labels = encoder.features("mean", encoder.images.train, encoder.labelled())
    test, truth = encoder.features("mean", encoder.images.test)
    means = torch.stack([features[labels == k].mean(0) for k in range(encoder.classes)])
    means = torch.lerp(means, features.mean(0), recipe.shrink)
    return scored(torch.cdist(test, means).argmin(1) == truth)


centroid.Config = CentroidConfig  # type: ignore[attr-defined]
centroid.label = "nearest mean"  # type: ignore[attr-defined]
