"""Weight recalibration as an additive bias on the attention logits, which keeps the fused kernel.

B images, T tokens of a layer. Visible rows are all that are not masked, the class token among
them: it would otherwise carry what the masked tokens say back to the visible ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mto.affinity import places


def leaky_pairs(hidden: Tensor) -> Tensor:
    """Pairs of a visible row and a masked column [B, 1, T, T], from ``hidden`` [B, T]."""
    return (~hidden[:, :, None] & hidden[:, None, :])[:, None]


def recalibration_bias(hidden: Tensor, r: float, dtype: torch.dtype) -> Tensor:
    """Bias [B, 1, T, T]: log r at masked columns of visible rows, 0 elsewhere.

    Reading: weight recalibration, default. After the softmax, the weight of a masked column in a
    visible row is scaled by r and the row renormalised; r = 0 shuts the column out.
    """
    pairs = leaky_pairs(hidden)
    bias = torch.zeros(pairs.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(pairs, math.log(r) if r > 0 else -math.inf)


def least_attended(received: Tensor, hidden: Tensor, share: float) -> Tensor:
    """The ``share`` of masked columns [B, T] that receive least; counts round to nearest.

    ``received`` [B, T] is the attention of visible rows to each column.
    """
    masked = places(hidden)
    values = torch.take_along_dim(received, masked.index, 1)
    order = values.masked_fill(~masked.valid, math.inf).argsort(dim=1, stable=True)
    wanted = (masked.valid.sum(1, keepdim=True) * share).round()
    first = torch.arange(order.shape[1], device=order.device) < wanted
    least = torch.take_along_dim(masked.index, order, 1)
    return torch.zeros_like(hidden).scatter(1, least, first)


def exclusion_bias(received: Tensor, hidden: Tensor, share: float, dtype: torch.dtype) -> Tensor:
    """Bias [B, 1, T, T]: -inf where a visible row meets one of the least attended masked columns.

    Reading: weight recalibration, alternative ("selective exclusion of semantically
    inconsequential masked tokens from the weight aggregation of visible tokens").
    """
    dropped = least_attended(received, hidden, share)
    pairs = (~hidden[:, :, None] & dropped[:, None, :])[:, None]
    bias = torch.zeros(pairs.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(pairs, -math.inf)
