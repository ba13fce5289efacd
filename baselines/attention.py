"""Multi-head attention, written out as batched products where sequences are short.

On a CPU the fused kernel serves long sequences; on 7 or 17 tokens it spends its time on set-up, and
its gradient takes three times as long as the products it is made of (docs/performance.md). Where
``kernels.py`` could be built it takes their place.
B images, T tokens, D width, H heads, d head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines import kernels

SHORT = 32
"""Tokens up to which attention on a CPU is written out."""


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, each [B, H, T, d], of a fused ``qkv`` [B, T, 3 D]."""
    b, t, _ = qkv.shape
    q, k, v = qkv.view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def attend(qkv: Tensor, heads: int, bias: Tensor | None = None, drop: float = 0.0) -> Tensor:
    """Attention of a fused ``qkv`` [B, T, 3 D], scaled by d^-1/2; tokens [B, T, D].

    ``bias`` broadcasts to [B, H, T, T] and is added to the logits; ``drop`` is the rate at which
    weights are dropped. Gradients are of first order only where the sequence is short.
    """
    if bias is not None:
        bias = bias.to(qkv.dtype)
    if not drop and kernels.suit_attention(qkv, qkv, qkv.shape[2] // (3 * heads)):
        return kernels.attend_within(qkv, heads, bias)
    if not drop and _suits_batched_products(qkv):
        short: Tensor = _ShortAttention.apply(qkv, bias, heads)
        return short
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
    if not drop and kernels.suit_attention(query, read, width // heads):
        return kernels.attend(query, read, heads, bias)
    q = query.view(b, t, heads, -1).transpose(1, 2)
    k, v = read.view(b, read.shape[1], 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
    return out.transpose(1, 2).reshape(b, t, width)


def _suits_batched_products(qkv: Tensor) -> bool:
    """A fixed property of the layer, never a timing: two processes must choose alike."""
    if qkv.device.type != "cpu" or qkv.shape[1] > SHORT:
        return False
    full = qkv.dtype in (torch.float32, torch.float64)
    return full and not torch.compiler.is_compiling()


class _ShortAttention(torch.autograd.Function):
    """Batched products over images and heads; weights are kept key by query, [B H, T, T].

    Turned so, the softmax runs over the middle dimension, which PyTorch does two to four times as
    fast as over a short last one.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor | None, heads: int) -> Tensor:
        b, t, _ = qkv.shape
        packed = qkv.reshape(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        q, k, v = packed.flatten(1, 2).unbind(0)
        scores = torch.baddbmm(q[:1, :1, :1], k, q.mT, beta=0, alpha=q.shape[2] ** -0.5)
        if bias is not None:
            scores.view(b, heads, t, t).add_(bias.mT)
        weights = scores.softmax(1)
        ctx.save_for_backward(packed, weights)
        ctx.bias_shape = None if bias is None else bias.shape
        return torch.bmm(weights.mT, v).view(b, heads, t, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        packed, weights = ctx.saved_tensors
        _, b, heads, t, width = packed.shape
        q, k, v = packed.flatten(1, 2).unbind(0)
        rows = gradient.reshape(b, t, heads, width).transpose(1, 2).flatten(0, 1)
        by_weight = torch.bmm(v, rows.mT)
        by_score = torch._softmax_backward_data(by_weight, weights, 1, weights.dtype)
        by_bias = None
        if ctx.needs_input_grad[1]:
            by_bias = by_score.view(b, heads, t, t).mT.sum_to_size(ctx.bias_shape)
        by_score = by_score * width**-0.5
        gradients = torch.empty_like(packed)
        to_q, to_k, to_v = gradients.flatten(1, 2).unbind(0)
        torch.bmm(by_score.mT, k, out=to_q)
        torch.bmm(by_score, q, out=to_k)
        torch.bmm(weights, rows, out=to_v)
        return gradients.permute(1, 3, 0, 2, 4).flatten(2), by_bias, None
