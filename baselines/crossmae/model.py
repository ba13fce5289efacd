"""CrossMAE: "Rethinking Patch Dependence for Masked Autoencoders", arXiv 2401.14391.

MAE whose decoder has no self-attention: mask tokens ask the encoder's outputs and nothing else, so
none of them knows of another, and visible tokens stay as the encoder left them. B images, N
patches, V visible, K predicted, D encoder width, E decoder width, L encoder outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from baselines.attention import attend_to
from baselines.crossmae.config import CrossMAEConfig
from baselines.crossmae.official import from_crossmae
from baselines.entering import entering
from baselines.linear import Linear
from baselines.mae.model import MAE
from baselines.masking import hide_first
from baselines.places import split, take
from baselines.vit import EPS, Mlp
from bench.api import Batch, SampleStream, TokenHook, VisionShape
from bench.errors import UsageError

PREDICTED = 1 << 19
"""First draw of an image's stream that chooses what is predicted: behind drop path's."""


class CrossAttention(nn.Module):
    """Mask tokens ask; keys and values are the encoder's (transformer_utils.py)."""

    def __init__(self, read_width: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{heads} heads do not divide a width of {width}.")
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(read_width, 2 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        """Mask tokens [B, K, E] and what they read [B, 1 + V, D] to [B, K, E]."""
        return self.proj(attend_to(self.q(x), self.kv(read), self.heads))


class CrossBlock(nn.Module):
    """Pre-norm block of cross-attention and an MLP."""

    def __init__(self, read_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.cross_attn = CrossAttention(read_width, width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        """[B, K, E] to [B, K, E]; ``read`` [B, 1 + V, D] is normed."""
        x = x + self.cross_attn(self.norm1(x), read)
        mixed: Tensor = self.mlp(self.norm2(x))
        return x + mixed


class CrossMAE(MAE):
    """MAE with a decoder of cross-attention; each of its blocks reads its own mix of the encoder.

    The encoder's final norm is that of evaluation alone, the original has none: it stays as it is.
    """

    Config = CrossMAEConfig
    config: CrossMAEConfig
    asks_only = True

    def __init__(self, shape: VisionShape, config: CrossMAEConfig) -> None:
        super().__init__(shape, config)
        self.vit.norm.requires_grad_(False)
        del self.decoder_embed
        depth, width, heads = config.decoder_depth, config.decoder_width, config.decoder_heads
        self.mix = nn.Parameter(torch.zeros(depth, 1 + shape.depth))
        self.dec_norms = nn.ModuleList(nn.LayerNorm(shape.width, eps=EPS) for _ in range(depth))
        self.decoder_blocks = nn.ModuleList(
            CrossBlock(shape.width, width, heads) for _ in range(depth)
        )

    def encode(self, patches: Tensor, visible: Tensor, noise: SampleStream | None) -> Tensor:
        """Input and outputs of the encoder's blocks, [L, B, 1 + V, D], of visible patches."""
        tokens = self.vit.prepend_class(self.embed(patches, visible))
        return torch.stack([tokens, *self.vit.run(tokens, noise)])

    def decode(
        self, latent: Tensor, visible: Tensor, batch: Batch, hook: TokenHook | None
    ) -> tuple[Tensor, Tensor]:
        """Mask tokens [B, K, E] that have read the encoder's outputs, and their places [B, K]."""
        places = self.predicted(batch)
        table = self.decoder_pos_embed[:, 1:]
        beside = table[:, :0].expand(len(places), -1, -1)
        full = entering(hook, beside, self.mask_token, batch.hidden) + table
        x = take(full.expand(len(places), -1, -1), places)
        read = torch.einsum("kl,lbtd->kbtd", self.mix, latent)
        for index, block in enumerate(self.decoder_blocks):
            x = block(x, self.dec_norms[index](read[index]))
        return x, places

    def predicted(self, batch: Batch) -> Tensor:
        """Places [B, K] of the hidden patches to predict; all where nothing is to be random."""
        most = batch.most or self.hidden_count
        places = split(batch.hidden, most)[1]
        count = most - int(most * (1 - self.config.predict_share))
        if batch.noise is None or count == most:
            return places
        draws = batch.noise.uniform(most, offset=PREDICTED)
        return places[hide_first(draws, count)].view(-1, count)

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released CrossMAE checkpoint under the names of this method."""
        return from_crossmae(official, self.state_dict())
