"""Weight recalibration as an additive bias on the attention logits, which keeps the fused kernel.

B images, T tokens of a layer. Visible rows are all that are not masked, the class token among
them: it would otherwise carry what the masked tokens say back to the visible ones. The abstract's
sentence, "exclusion of masked tokens from the weight aggregation of visible tokens", can be parsed
as what visible tokens aggregate (visible rows) or as every token's aggregation over visible tokens
(all rows); masked rows alone are the rest of the second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mto.affinity import places
from mto.config import Rows


def leaky_pairs(hidden: Tensor, columns: Tensor, rows: Rows, keep_self: bool) -> Tensor:
    """Pairs [B, 1, T, T] of a row of the kind ``rows`` and one of ``columns`` [B, T].

    ``hidden`` [B, T] marks the masked rows. With ``keep_self`` no row is paired with itself.
    """
    pairs = columns[:, None, :]
    if rows != "all":
        pairs = (hidden if rows == "masked" else ~hidden)[:, :, None] & pairs
    if keep_self and rows != "visible":
        pairs = pairs & ~torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)
    return pairs.expand(-1, hidden.shape[1], -1)[:, None]


def recalibration_bias(
    hidden: Tensor,
    r: float,
    dtype: torch.dtype,
    rows: Rows = "visible",
    keep_self: bool = True,
) -> Tensor:
    """Bias [B, 1, T, T]: log r at masked columns of the rows ``rows``, 0 elsewhere.

    Reading: weight recalibration, default. After the softmax, the weight of a masked column in
    such a row is scaled by r and the row renormalised; r = 0 shuts the column out.
    """
    pairs = leaky_pairs(hidden, hidden, rows, keep_self)
    bias = torch.zeros(pairs.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(pairs, math.log(r) if r > 0 else -math.inf)


def least_attended(received: Tensor, hidden: Tensor, share: float) -> Tensor:
    """The ``share`` of masked columns [B, T] that receive least; counts round to nearest.

    ``received`` [B, T] is the attention of the recalibrated rows to each column.
    """
    masked = places(hidden)
    values = torch.take_along_dim(received, masked.index, 1)
    order = values.masked_fill(~masked.valid, math.inf).argsort(dim=1, stable=True)
    wanted = (masked.valid.sum(1, keepdim=True) * share).round()
    first = torch.arange(order.shape[1], device=order.device) < wanted
    least = torch.take_along_dim(masked.index, order, 1)
    return torch.zeros_like(hidden).scatter(1, least, first)


def exclusion_bias(
    received: Tensor,
    hidden: Tensor,
    share: float,
    dtype: torch.dtype,
    rows: Rows = "visible",
    keep_self: bool = True,
) -> Tensor:
    """Bias [B, 1, T, T]: -inf where a row of ``rows`` meets one of the least attended columns.

    Reading: weight recalibration, alternative ("selective exclusion of semantically
    inconsequential masked tokens from the weight aggregation of visible tokens").
    """
    dropped = least_attended(received, hidden, share)
    pairs = leaky_pairs(hidden, dropped, rows, keep_self)
    bias = torch.zeros(pairs.shape, dtype=dtype, device=hidden.device)
    return bias.masked_fill_(pairs, -math.inf)
