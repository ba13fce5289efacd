"""Measures mask tokens layer by layer, in any method, without touching its gradients.

B images, T tokens, D width. Both arms of a table are measured by this same probe: wrapped around
a variant it sees each layer as recalibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api import MaskEmbedding, TokenLayer
from mto.affinity import head_logits, mean_logits, patch_sets
from mto.config import MTOConfig
from mto.heterogeneity import cosine_heterogeneity, entropy_heterogeneity
from mto.losses import token_distance
from mto.reading import View, view

_ENTROPY = "heterogeneity"
_COSINE = "heterogeneity_cosine"
_MASS = "mass_to_masked"
_AMONG_MASKED = "masked_to_masked"
_FROM_MASKED = "masked_to_visible"
_DISTANCE = "token_distance"

_Place = tuple[int, int]
"""A layer's stream, in the order in which streams were seen, and its depth within it."""


class LayerProbe:
    """A hook that averages measurements over the images of all passes it saw.

    Where a method has several streams of layers, they follow each other in its order.

    Attributes:
        tau: Temperature of the entropy measure of heterogeneity.
        images: How many images of each batch the layers are measured on; 0 is all of them.
    """

    def __init__(self, tau: float = MTOConfig.tau, images: int = 0) -> None:
        self.tau = tau
        self.images = images
        self._sums: dict[str, dict[_Place, float]] = {}
        self._counts: dict[str, dict[_Place, int]] = {}
        self._streams: list[str] = []
        self._hidden: Tensor | None = None
        self._view: View | None = None

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> None:
        """Leaves nothing out: a probe wants to see every layer."""

    @torch.no_grad()
    def embedding(self, embedding: MaskEmbedding) -> None:
        """Records the mask token's standardised distance from the patch embeddings, if any."""
        if embedding.tokens.shape[1]:
            distance = token_distance(embedding.tokens, embedding.mask_token)
            self._record(_DISTANCE, (0, 0), distance)

    @torch.no_grad()
    def attention(self, layer: TokenLayer) -> None:
        """Records H by both measures, and the attention mass on each edge.

        H's entropy averages logits over heads, as MTO does by default; masses are the true ones,
        taken from each head's attention: of visible patches on masked ones, of masked ones on other
        masked ones, and on visible patches.
        """
        at, place = self._seen(layer), self._place(layer)
        block = at.to_visible("masked")
        s = mean_logits(layer, block, layer.bias)
        entropy = entropy_heterogeneity(s, block.rows.valid, block.cols.valid, self.tau)
        self._record(_ENTROPY, place, entropy)
        masked, visible = patch_sets(at.hidden, layer.prefix)
        cosine = cosine_heterogeneity(layer.tokens[at.images], masked, visible)
        self._record(_COSINE, place, cosine)
        logits = head_logits(layer, at.to_all("visible"), None, layer.bias)
        self._record(_MASS, place, at.mass(logits, "visible", masked))
        logits = head_logits(layer, at.to_all("masked"), None, layer.bias)
        self._record(_AMONG_MASKED, place, at.mass(logits, "masked", masked))
        self._record(_FROM_MASKED, place, at.mass(logits, "masked", visible))

    def summary(self) -> dict[str, list[float] | float]:
        """Means over all images seen: lists by layer, and the distance if mask tokens have one."""
        means: dict[str, list[float] | float] = {
            name: self._means(name)
            for name in (_ENTROPY, _COSINE, _MASS, _AMONG_MASKED, _FROM_MASKED)
        }
        for distance in self._means(_DISTANCE):
            means[_DISTANCE] = distance
        return means

    def _seen(self, layer: TokenLayer) -> View:
        if self._view is None or layer.hidden is not self._hidden:
            size = layer.hidden.shape[0]
            first = torch.arange(min(self.images or size, size), device=layer.hidden.device)
            self._hidden, self._view = layer.hidden, view(layer.hidden, layer.prefix, first)
        return self._view

    def _place(self, layer: TokenLayer) -> _Place:
        if layer.stream not in self._streams:
            self._streams.append(layer.stream)
        return self._streams.index(layer.stream), layer.index

    def _record(self, name: str, place: _Place, values: Tensor) -> None:
        sums, counts = self._sums.setdefault(name, {}), self._counts.setdefault(name, {})
        sums[place] = sums.get(place, 0.0) + float(values.sum())
        counts[place] = counts.get(place, 0) + len(values)

    def _means(self, name: str) -> list[float]:
        sums, counts = self._sums.get(name, {}), self._counts.get(name, {})
        return [sums[place] / counts[place] for place in sorted(sums)]
