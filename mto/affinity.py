"""Pre-softmax affinities S of selected rows and columns, outside the fused attention.

B images, b of them read, T tokens of a layer, R rows and C columns read, H heads, G = H heads
kept apart or 1, d width of a head, D width of a token. A *block* says which rows and columns of
which images; rows and columns may be ragged over images, then they are padded and ``valid`` is
False at the padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import TokenLayer


@dataclass(frozen=True)
class Places:
    """Token positions ``index`` [b, R] of each image; ``valid`` [b, R] is False at padding."""

    index: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Block:
    """Rows and columns to read, of the images ``images`` [b]."""

    images: Tensor
    rows: Places
    cols: Places


def places(marked: Tensor) -> Places:
    """Positions at which ``marked`` [b, T] is True, padded to the longest row.

    Padding points at unmarked positions, so that no position occurs twice in a row.
    """
    counts = marked.sum(1, keepdim=True)
    longest = int(counts.max()) if marked.numel() else 0
    order = marked.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    index = order[:, :longest]
    return Places(index, torch.arange(longest, device=marked.device) < counts)


def everywhere(images: int, tokens: int, device: torch.device) -> Places:
    """All of T positions of each image."""
    index = torch.arange(tokens, device=device).expand(images, tokens)
    return Places(index, torch.ones_like(index, dtype=torch.bool))


def patch_sets(hidden: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """(M, V): masked and visible patches [B, T] each; the prefix (class token) is in neither."""
    patch = torch.arange(hidden.shape[1], device=hidden.device) >= prefix
    return hidden & patch, ~hidden & patch


def sample_images(draws: Tensor, share: float) -> Tensor:
    """Images [b] whose uniform draw, of ``draws`` [B], is below ``share``.

    Each image decides by itself, so the choice does not depend on how a batch is split over
    devices; weighting those chosen by 1 / share keeps the estimate unbiased.
    """
    return (draws < share).nonzero()[:, 0]


def sample_heads(draws: Tensor, heads: int, wanted: int) -> Tensor:
    """``wanted`` of H heads of each image [b, wanted]: cyclic from the place that ``draws`` names.

    Every head is as likely as any other, so a mean over the chosen estimates the mean over all.
    """
    first = (draws * heads).long()
    step = torch.arange(wanted, device=draws.device)
    return (first[:, None] + step) % heads


def take(x: Tensor, images: Tensor, index: Tensor) -> Tensor:
    """``x`` [B, T, E] at ``images`` [b] and positions ``index`` [b, R]: [b, R, E]."""
    flat = x.reshape(-1, x.shape[-1])
    where = images[:, None] * x.shape[1] + index
    return flat.index_select(0, where.flatten()).reshape(*index.shape, x.shape[-1])


def token_affinity(layer: TokenLayer, block: Block) -> Tensor:
    """Affinity of tokens, S_ij = x_i·x_j / √D: [b, 1, R, C]. Reading: S, alternative."""
    rows = take(layer.tokens, block.images, block.rows.index)
    cols = take(layer.tokens, block.images, block.cols.index)
    return (rows @ cols.mT / math.sqrt(rows.shape[-1])).float()[:, None]


def mean_logits(layer: TokenLayer, block: Block, *biases: Tensor | None) -> Tensor:
    """Attention logits averaged over heads, bias included: [b, 1, R, C]. Reading: S, default.

    The mean over heads of q·k is one product of the heads laid side by side.
    """
    heads = layer.query.shape[1]
    rows = take(_side_by_side(layer.query), block.images, block.rows.index)
    cols = take(_side_by_side(layer.key), block.images, block.cols.index)
    logits = (rows @ cols.mT * (layer.scale / heads)).float()[:, None]
    for bias in biases:
        if bias is not None:
            logits = logits + _read(bias.mean(1, keepdim=True), block)
    return logits


def head_logits(
    layer: TokenLayer, block: Block, heads: Tensor | None, *biases: Tensor | None
) -> Tensor:
    """Attention logits of each head, bias included: [b, G, R, C]. ``heads`` [b, G], None for all.

    Reading: S, alternative: measured head by head, the measures averaged.
    """
    rows = _apart(take(_side_by_side(layer.query), block.images, block.rows.index), layer)
    cols = _apart(take(_side_by_side(layer.key), block.images, block.cols.index), layer)
    logits = (_pick(rows, heads) @ _pick(cols, heads).mT * layer.scale).float()
    for bias in biases:
        if bias is not None:
            logits = logits + _pick(_read(bias, block), heads)
    return logits


def _pick(x: Tensor, heads: Tensor | None) -> Tensor:
    if heads is None or x.shape[1] == 1:
        return x
    return torch.take_along_dim(x, heads[:, :, None, None], 1)


def _side_by_side(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _apart(x: Tensor, layer: TokenLayer) -> Tensor:
    heads, width = layer.query.shape[1], layer.query.shape[3]
    return x.reshape(*x.shape[:2], heads, width).transpose(1, 2)


def _read(bias: Tensor, block: Block) -> Tensor:
    """Bias [B or 1, H or 1, T, T] at the block's places: [b, H or 1, R, C]."""
    images = block.images if bias.shape[0] > 1 else torch.zeros_like(block.images)
    rows, cols = block.rows.index[:, :, None], block.cols.index[:, None, :]
    return bias[images[:, None, None], :, rows, cols].permute(0, 3, 1, 2).float()
