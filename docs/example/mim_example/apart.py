"""A plug-in with a loss of its own: the masked tokens of an image are kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.api import Batch, MethodOutput, PassOn, TokenHook, TokenLayer, Wrapper
from bench.api.rules import Amount, Ruled


@dataclass(frozen=True, kw_only=True)
class ApartConfig(Ruled, section="apart"):
    """The loss's weight, and the standard deviation below which it acts; 0 is the bare method."""

    weight: Amount = 0.05
    margin: Amount = 1.0


class Apart(Wrapper):
    """A method that is punished where masked tokens grow alike, by VICReg's variance term."""

    Config = ApartConfig

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """The method's output, the weighted loss in ``penalty`` and as it is in ``terms``."""
        if not self.config.weight:
            return super().forward(batch, hook)
        watch = _Watch(self.config.margin, hook)
        output = self.method(batch, watch)
        if not watch.found:
            return output
        loss = torch.stack(watch.found).mean()
        penalty = self.config.weight * loss
        if output.penalty is not None:  # that of a plug-in inside
            penalty = penalty + output.penalty
        return replace(output, penalty=penalty, terms={**output.terms, "apart": loss.detach()})


class _Watch(PassOn):
    """Reads the last layer of each stack; made anew for each pass."""

    def __init__(self, margin: float, outer: TokenHook | None) -> None:
        super().__init__(outer)
        self.margin = margin
        self.found: list[Tensor] = []

    def attention(self, layer: TokenLayer) -> Tensor | None:
        """Keeps the loss of each image, [B]; the attention stays what it is."""
        if layer.index == layer.count - 1:
            hidden = layer.hidden[:, :, None]
            count = hidden.sum(1).clamp(min=1)
            mean = (layer.tokens * hidden).sum(1, keepdim=True) / count[:, None]
            variance = ((layer.tokens - mean).square() * hidden).sum(1) / count
            self.found.append((self.margin - (variance + 1e-4).sqrt()).relu().mean(1))
        return super().attention(layer)
