"""A plug-in: every mask token gets noise of its own, drawn anew at each step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.api import Batch, MaskEmbedding, PassOn, TokenHook, Wrapper
from bench.api.rules import Amount, Ruled
from bench.api.wrapper import NOISE_OFFSET


@dataclass(frozen=True, kw_only=True)
class NoisyConfig(Ruled, section="noisy"):
    """Noise uniform within ``scale`` on both sides of the mask token; 0 is the bare method."""

    scale: Amount = 0.05


class Noisy(Wrapper):
    """A method whose mask tokens differ from place to place."""

    Config = NoisyConfig

    def hook(self, batch: Batch, outer: TokenHook | None) -> TokenHook | None:
        """What adds the noise; nothing where nothing is to be random."""
        quiet = batch.noise is None or not self.config.scale
        return outer if quiet else _Noise(self.config.scale, batch, outer)


class _Noise(PassOn):
    def __init__(self, scale: float, batch: Batch, outer: TokenHook | None) -> None:
        super().__init__(outer)
        self.scale, self.noise = scale, batch.noise

    def embedding(self, embedding: MaskEmbedding) -> Tensor:
        entering = super().embedding(embedding)
        if entering is None:
            entering = embedding.mask_token
        assert self.noise is not None
        count, width = int(embedding.hidden.sum(1).max()), embedding.mask_token.shape[2]
        draws = self.noise.uniform(count * width, offset=NOISE_OFFSET).unflatten(1, (count, width))
        return entering + self.scale * (2 * draws - 1)
