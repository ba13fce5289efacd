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
from mto.config import MTOConfig, Rows
from mto.heterogeneity import (
    cosine_heterogeneity,
    entropy_heterogeneity,
    log_weights,
    mass,
    row_entropy,
    row_mean,
)


@dataclass(frozen=True)
class View:
    """The images [b] to read, their ``hidden`` [b, T], and where M, V, both and all tokens are."""

    images: Tensor
    hidden: Tensor
    masked: Places
    visible: Places
    patches: Places
    tokens: Places

    def rows(self, which: Rows) -> Places:
        """The patches whose rows are meant."""
        return {"visible": self.visible, "masked": self.masked, "all": self.patches}[which]

    def to_all(self, which: Rows) -> Block:
        """Those rows over all columns: where masses are read."""
        return Block(self.images, self.rows(which), self.tokens)

    def to_visible(self, which: Rows) -> Block:
        """Those rows over visible patches: of masked ones, where H is read."""
        return Block(self.images, self.rows(which), self.visible)

    def mass(self, s: Tensor, which: Rows, onto: Tensor) -> Tensor:
        """Mass [b] that those rows, read as ``s``, give to ``onto`` [b, T] but their own column."""
        rows = self.rows(which)
        return mass(s, rows.valid, self.tokens.valid, onto[:, None] & self.others(which))

    def others(self, which: Rows) -> Tensor:
        """True at the columns [b, R, T] that are not the row's own."""
        return self.rows(which).index[:, :, None] != self.tokens.index[:, None]


def view(hidden: Tensor, prefix: int, images: Tensor) -> View:
    """Positions to read, from ``hidden`` [B, T] and the chosen ``images`` [b]."""
    chosen = hidden[images]
    masked, visible = patch_sets(chosen, prefix)
    tokens = everywhere(len(images), hidden.shape[1], hidden.device)
    patches = Places(tokens.index[:, prefix:], tokens.valid[:, prefix:])
    return View(images, chosen, places(masked), places(visible), patches, tokens)


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
    """H [b] of a layer; recalibration leaves visible columns alone, so its bias does not enter."""
    if config.heterogeneity == "cosine":
        masked, visible = patch_sets(at.hidden, layer.prefix)
        return cosine_heterogeneity(layer.tokens[at.images], masked, visible)
    block = at.to_visible("masked")
    s = affinity(config, layer, block)
    return entropy_heterogeneity(s, block.rows.valid, block.cols.valid, config.tau)


def leak(
    config: MTOConfig, layer: TokenLayer, at: View, added: Tensor | None, heads: Tensor | None
) -> Tensor:
    """What L_spa acts on in a layer [b]: of ``spa_rows``, mass on masked columns, or entropy."""
    which = config.spa_rows
    block = at.to_visible(which) if config.spa_columns == "visible" else at.to_all(which)
    s = affinity(config, layer, block, added, heads)
    if config.spa_form == "row_entropy":
        return row_mean(row_entropy(s, block.cols.valid), block.rows.valid)
    return at.mass(s, which, at.hidden)


def weight_received(config: MTOConfig, layer: TokenLayer, at: View) -> Tensor:
    """Attention that each column receives from other recalibrated patches [b, T], summed up."""
    block = at.to_all(config.rows)
    with torch.no_grad():
        weights = log_weights(affinity(config, layer, block), block.cols.valid).exp()
        counted = block.rows.valid[:, :, None] & at.others(config.rows)
        return torch.einsum("bgrc,brc->bc", weights, counted.to(weights.dtype))
