"""Which function a setting selects: from a layer and a view of it to one value an image.

b images read, T tokens, G heads kept apart (or 1), R rows, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import TokenLayer
from mto.affinity import (
    Block,
    Places,
    everywhere,
    head_logits,
    mean_logits,
    patch_sets,
    places,
    token_affinity,
)
from mto.config import MTOConfig
from mto.heterogeneity import (
    cosine_heterogeneity,
    entropy_heterogeneity,
    log_weights,
    masked_mass,
    row_entropy,
    row_mean,
)


@dataclass(frozen=True)
class View:
    """The images [b] to read, their ``hidden`` [b, T], and where M, V and all tokens are."""

    images: Tensor
    hidden: Tensor
    masked: Places
    visible: Places
    tokens: Places

    @property
    def masked_to_visible(self) -> Block:
        """Masked rows over visible columns: where H is read."""
        return Block(self.images, self.masked, self.visible)

    @property
    def visible_to_all(self) -> Block:
        """Visible rows over all columns: where L_spa is read."""
        return Block(self.images, self.visible, self.tokens)


def view(hidden: Tensor, prefix: int, images: Tensor) -> View:
    """Positions to read, from ``hidden`` [B, T] and the chosen ``images`` [b]."""
    chosen = hidden[images]
    masked, visible = patch_sets(chosen, prefix)
    tokens = everywhere(len(images), hidden.shape[1], hidden.device)
    return View(images, chosen, places(masked), places(visible), tokens)


def affinity(
    config: MTOConfig,
    layer: TokenLayer,
    block: Block,
    added: Tensor | None = None,
    heads: Tensor | None = None,
) -> Tensor:
    """S [b, G, R, C] as ``config.affinity`` and ``config.heads`` read it.

    Logits carry the layer's own bias and ``added``, the one that recalibration adds.
    """
    if config.affinity == "tokens":
        return token_affinity(layer, block)
    if config.heads == "average":
        return mean_logits(layer, block, layer.bias, added)
    return head_logits(layer, block, heads, layer.bias, added)


def heterogeneity(config: MTOConfig, layer: TokenLayer, at: View) -> Tensor:
    """H [b] of a layer; recalibration leaves masked rows alone, so its bias does not enter."""
    if config.heterogeneity == "cosine":
        masked, visible = patch_sets(at.hidden, layer.prefix)
        return cosine_heterogeneity(layer.tokens[at.images], masked, visible)
    block = at.masked_to_visible
    s = affinity(config, layer, block)
    return entropy_heterogeneity(s, block.rows.valid, block.cols.valid, config.tau)


def leak(
    config: MTOConfig, layer: TokenLayer, at: View, added: Tensor | None, heads: Tensor | None
) -> Tensor:
    """What L_spa lowers in a layer [b]: mass on masked columns, or entropy, of visible rows."""
    block = at.visible_to_all
    s = affinity(config, layer, block, added, heads)
    if config.spa_form == "row_entropy":
        return row_mean(row_entropy(s, block.cols.valid), block.rows.valid)
    return masked_mass(s, block.rows.valid, block.cols.valid, at.hidden)


def weight_received(config: MTOConfig, layer: TokenLayer, at: View) -> Tensor:
    """Attention that each column receives from the visible rows [b, T], summed over rows."""
    block = at.visible_to_all
    with torch.no_grad():
        weights = log_weights(affinity(config, layer, block), block.cols.valid).exp()
        return torch.einsum("bgrc,br->bc", weights, block.rows.valid.to(weights.dtype))
