"""Multi-head attention on a fused qkv, by PyTorch's own operation.

B images, T tokens, D width, H heads, d head width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, each [B, H, T, d], of a fused ``qkv`` [B, T, 3 D]."""
    b, t, width = qkv.shape
    q, k, v = qkv.view(b, t, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def attend(qkv: Tensor, heads: int, bias: Tensor | None = None, drop: float = 0.0) -> Tensor:
    """Attention of a fused ``qkv`` [B, T, 3 D], scaled by d^-1/2; tokens [B, T, D].

    ``bias`` broadcasts to [B, H, T, T] and is added to the logits; ``drop`` is the rate at which
    weights are dropped.
    """
    if bias is not None:
        bias = bias.to(qkv.dtype)
    q, k, v = split_heads(qkv, heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
    return out.transpose(1, 2).flatten(2)


def attend_to(
    query: Tensor, read: Tensor, heads: int, bias: Tensor | None = None, drop: float = 0.0
) -> Tensor:
    """Attention of queries [B, T, D] to other tokens' keys and values, ``read`` [B, K, 2 D].

    As :func:`attend` but for the sizes: ``bias`` broadcasts to [B, H, T, K].
    """
    b, t, width = query.shape
    if bias is not None:
        bias = bias.to(query.dtype)
    each = width // heads
    q = query.view(b, t, heads, each).transpose(1, 2)
    k, v = read.view(b, read.shape[1], 2, heads, each).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
    return out.transpose(1, 2).reshape(b, t, width)
