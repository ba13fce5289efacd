"""BootMAE's decoders: mask tokens among encoded patches, each layer also reading the encoder.

B images, N patches, V visible, M hidden, T = 1 + N tokens, D encoder width, E decoder width,
H heads. A head is floor(E / H) wide, so the attention may be narrower than its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.attention import attend, split_heads
from baselines.entering import entering
from baselines.linear import Linear, linear
from baselines.places import put, take
from baselines.vit import EPS, Mlp
from bench.api import TokenHook, TokenLayer


@dataclass(frozen=True)
class DecoderShape:
    """Width E, heads and depth of one decoder, and the width D of the encoder it reads."""

    encoder_width: int
    width: int
    heads: int
    depth: int

    @property
    def inner(self) -> int:
        """Width of all heads together, at most E."""
        return self.width // self.heads * self.heads


@dataclass(frozen=True)
class Masked:
    """Places of the visible [B, V] and hidden [B, M] patches; which tokens are masked [B, T]."""

    visible: Tensor
    hidden: Tensor
    tokens: Tensor


class SelfAttention(nn.Module):
    """Self-attention among the decoder's tokens; biases for queries and values alone."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = Linear(shape.width, 3 * shape.inner, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(shape.inner))
        self.v_bias = nn.Parameter(torch.zeros(shape.inner))
        self.proj = Linear(shape.inner, shape.width)

    def forward(self, x: Tensor, layer: Layer) -> Tensor:
        """[B, T, E] to [B, T, E]."""
        none = torch.zeros_like(self.v_bias)
        qkv = linear(x, self.qkv.weight, torch.cat([self.q_bias, none, self.v_bias]))
        query, key, _ = split_heads(qkv, self.heads)
        return self.proj(attend(qkv, self.heads, layer.bias(x, query, key)))


class CrossAttention(nn.Module):
    """Every token of the decoder asks the encoder's tokens; no mask token is among those."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q = Linear(shape.width, shape.inner, bias=False)
        self.kv = Linear(shape.encoder_width, 2 * shape.inner, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(shape.inner))
        self.v_bias = nn.Parameter(torch.zeros(shape.inner))
        self.proj = Linear(shape.inner, shape.width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Tokens [B, T, E] and the encoder's [B, 1 + V, D] to [B, T, E]."""
        bias = torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        query = linear(x, self.q.weight, self.q_bias)
        return self.proj(attend_to(query, linear(memory, self.kv.weight, bias), self.heads))


def attend_to(query: Tensor, read: Tensor, heads: int) -> Tensor:
    """Attention of queries [B, T, I] over keys and values side by side, [B, S, 2 I]: [B, T, I]."""
    q = query.unflatten(2, (heads, -1)).transpose(1, 2)
    k, v = read.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention, MLP: each behind a norm, each added to the tokens.

    Source: modeling_pretrain_bootmae.py:123-162.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=EPS)
        self.attn = SelfAttention(shape)
        self.norm3 = nn.LayerNorm(shape.width, eps=EPS)
        self.norm4 = nn.LayerNorm(shape.encoder_width, eps=EPS)
        self.c_attn = CrossAttention(shape)
        self.norm2 = nn.LayerNorm(shape.width, eps=EPS)
        self.mlp = Mlp(shape.width, 4 * shape.width)

    def forward(self, x: Tensor, memory: Tensor, layer: Layer) -> Tensor:
        """Tokens [B, T, E] and the encoder's [B, 1 + V, D] to [B, T, E]."""
        x = x + self.attn(self.norm1(x), layer)
        x = x + self.c_attn(self.norm3(x), self.norm4(memory))
        mixed: Tensor = self.mlp(self.norm2(x))
        return x + mixed


class Decoder(nn.Module):
    """One of the two decoders; ``name`` is what its stream of layers is called to hooks."""

    def __init__(self, name: str, shape: DecoderShape) -> None:
        super().__init__()
        self.name = name
        self.embed = Linear(shape.encoder_width, shape.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.blocks = nn.ModuleList(DecoderBlock(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=EPS)

    def forward(
        self,
        latent: Tensor,
        memory: Tensor,
        positions: Tensor,
        masked: Masked,
        hook: TokenHook | None,
    ) -> Tensor:
        """The decoded tokens at the hidden places, [B, M, E].

        Positions are added to mask tokens alone: encoded patches carry theirs from the encoder
        (modeling_pretrain_bootmae.py:481-497).

        Args:
            latent: the encoder's normed output [B, 1 + V, D], of which the tokens are made.
            memory: what every block's cross-attention reads, [B, 1 + V, D].
            positions: a table [1, 1 + N, E], the class token first.
            masked: where the visible and the hidden patches are.
            hook: what a plug-in or a probe hands in.
        """
        x = self.embed(latent).to(self.embed.weight.dtype)  # see PatchEmbed
        hidden = masked.tokens[:, 1:]
        entered = entering(hook, x[:, 1:], self.mask_token, hidden, self.name)
        masks = (entered + positions[:, 1:]).to(x.dtype).expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], put(x[:, 1:], masked.visible, masks)], dim=1)
        for index, block in enumerate(self.blocks):
            x = block(x, memory, Layer(self.name, index, len(self.blocks), masked.tokens, hook))
        normed: Tensor = self.norm(take(x[:, 1:], masked.hidden))
        return normed


@dataclass(frozen=True)
class Layer:
    """Presents one self-attention to a hook, if there is one."""

    stream: str
    index: int
    count: int
    hidden: Tensor
    hook: TokenHook | None

    def bias(self, tokens: Tensor, query: Tensor, key: Tensor) -> Tensor | None:
        """The additive bias that the hook asks for."""
        if self.hook is None:
            return None
        seen = TokenLayer(
            index=self.index,
            count=self.count,
            tokens=tokens,
            query=query,
            key=key,
            hidden=self.hidden,
            prefix=1,
            scale=query.shape[-1] ** -0.5,
            stream=self.stream,
        )
        return self.hook.attention(seen)
