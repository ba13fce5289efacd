"""Where the visible and the hidden patches are: their indices, and tokens taken there.

B images, N patches, K of them chosen, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the visible [B, N - count] and the hidden [B, count] patches, in raster order."""
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, : mask.shape[1] - count], order[:, mask.shape[1] - count :]


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens [B, N, D] at places [B, K], as [B, K, D]."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))


def put(tokens: Tensor, places: Tensor, into: Tensor) -> Tensor:
    """``into`` [B, N, D] with tokens [B, K, D] at places [B, K]."""
    return into.scatter(1, places[:, :, None].expand(-1, -1, into.shape[2]), tokens)
