"""A plug-in: the share of hidden patches is drawn anew at each step, as in arXiv 2509.21650."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.api import SampleStream, Wrapper
from bench.api.rules import Ruled, Share
from bench.api.wrapper import NOISE_OFFSET


@dataclass(frozen=True, kw_only=True)
class AnyRatioConfig(Ruled, section="anyratio"):
    """Uniform within ``spread`` on both sides of the method's own share; 0 is the bare method."""

    spread: Share = 0.2


class AnyRatio(Wrapper):
    """A method that hides more patches of all images in one step, fewer in another."""

    Config = AnyRatioConfig

    def masks_at(
        self, hidden: Tensor, noise: SampleStream | None, step: SampleStream | None
    ) -> Tensor:
        """Masks [B, N] that hold the method's own, or are held by them."""
        hidden = super().masks_at(hidden, noise, step)
        if noise is None or step is None or not self.config.spread:
            return hidden
        patches = hidden.shape[1]
        draw = 2 * step.uniform(1, offset=NOISE_OFFSET) - 1
        more = (draw * self.config.spread * patches).round()
        count = (hidden.sum(1, keepdim=True) + more).clamp(1, patches - 1)
        order = noise.uniform(patches, offset=NOISE_OFFSET) - hidden.float()
        return order.argsort(dim=1, stable=True).argsort(1) < count
