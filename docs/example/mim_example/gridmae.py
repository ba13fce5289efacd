"""A method: MAE that shows one random patch of each 2 x 2 cell, so that no region is all hidden.

Its masks are those of uniform sampling in UM-MAE (arXiv 2205.10063).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from bench.api import SampleStream


@dataclass(frozen=True, kw_only=True)
class GridMAEConfig(MAEConfig, section="gridmae"):
    """MAE's settings; three quarters are hidden whatever the mask ratio.

    The two attributes below are no settings.
    """

    recipe_of = "mae"  # what presets and suites set for MAE holds here too
    baseline = "mae"  # what its arms are compared with


class GridMAE(MAE):
    """MAE in all but its masks."""

    Config = GridMAEConfig

    @property
    def hidden_count(self) -> int:
        """Hidden patches of every image, by the masks and not by the mask ratio."""
        return self.shape.patches - (self.shape.grid // 2) ** 2

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Masks [B, N], three of each cell's four patches hidden."""
        side = self.shape.grid // 2
        shown = (stream.uniform(side**2) * 4).long().unflatten(1, (side, side))
        shown = shown.repeat_interleave(2, 1).repeat_interleave(2, 2)
        place = torch.arange(2 * side, device=shown.device) % 2
        return (shown != 2 * place[:, None] + place).flatten(1)
