"""The vision transformer all baselines share, its state under timm's names.

With a fused qkv bias and absolute positions the names are those of timm's ``VisionTransformer``
(MAE); with q and v biases, layer scale and a shared relative position bias those of timm's
``Beit`` (SimMIM, data2vec). B images, N patches, T tokens, D width, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.attention import attend, attend_to, split_heads
from baselines.carry import Carried, add
from baselines.linear import Linear, linear
from baselines.patches import patchify
from baselines.positions import (
    RelativePositionBias,
    bias_table,
    look_up,
    relative_index,
    sincos_positions,
    spread_table,
)
from bench.api import ClassifierOptions, SampleStream, TokenHook, TokenLayer, VisionShape
from bench.errors import RunError, UsageError

EPS = 1e-6
"""LayerNorm epsilon of every original (Hugging Face defaults to 1e-12)."""

Tap = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor | None]
"""Called with (tokens, query, key, bias); returns a bias to add, or None."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What differs between the encoders: positions, biases, layer scale, norm and dropping.

    ``relative`` is one bias table shared by all layers, ``relative_each`` one a layer.
    """

    positions: Literal["sincos", "relative", "relative_each"] = "sincos"
    split_bias: bool = False
    layer_scale: float = 0.0
    final_norm: bool = True
    drop_path: float = 0.0
    attn_drop: float = 0.0


class PatchEmbed(nn.Module):
    """Linear embedding of patches; the weight is kept as a convolution's, as everywhere else.

    Under autocast the product is in half precision and what is added to it, the tokens that the
    blocks carry, in that of the weights: the originals' sums are promoted by their position tables.
    """

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.patch = shape.patch_size
        self.proj = nn.Conv2d(shape.channels, shape.width, self.patch, stride=self.patch)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, C*p*p] to [B, N, D]."""
        tokens = linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        return tokens.to(self.proj.weight.dtype)


class Attention(nn.Module):
    """Fused multi-head self-attention with one additive bias and an optional tap on its inputs."""

    def __init__(self, width: int, heads: int, style: Style, grid: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{heads} heads do not divide a width of {width}.")
        self.heads, self.drop = heads, style.attn_drop
        self.qkv = Linear(width, 3 * width, bias=not style.split_bias)
        self.q_bias = nn.Parameter(torch.zeros(width)) if style.split_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if style.split_bias else None
        self.proj = Linear(width, width)
        self.relative_position_bias_table: nn.Parameter | None = None
        if style.positions == "relative_each":
            self.relative_position_bias_table = bias_table(grid, heads)
            self.register_buffer("relative_position_index", relative_index(grid), persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None, tap: Tap | None = None) -> Tensor:
        """[B, T, D] to [B, T, D]; ``bias`` broadcasts to [B, H, T, T]."""
        if self.relative_position_bias_table is not None:
            index: Tensor = self.relative_position_index  # type: ignore[assignment]
            bias = look_up(self.relative_position_bias_table, index)
        qkv_bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = linear(x, self.qkv.weight, qkv_bias)
        if tap is not None:
            query, key, _ = split_heads(qkv, self.heads)
            extra = tap(x, query, key, bias)
            if extra is not None:
                bias = extra if bias is None else bias + extra
        out = attend(qkv, self.heads, bias, self.drop if self.training else 0.0)
        return self.proj(out)

    def read(self, x: Tensor, columns: int, bias: Tensor | None = None) -> Tensor:
        """The same where only the first C = ``columns`` tokens are read: no other key or value.

        [B, K, D] to [B, K, D]; ``bias`` broadcasts to [B, H, K, C].
        """
        width = x.shape[2]
        to_query, to_read = self.qkv.weight.split([width, 2 * width])
        query_bias, read_bias = self._biases(width)
        query = linear(x, to_query, query_bias)
        read = linear(x[:, :columns], to_read, read_bias)
        drop = self.drop if self.training else 0.0
        return self.proj(attend_to(query, read, self.heads, bias, drop))

    def _biases(self, width: int) -> tuple[Tensor | None, Tensor | None]:
        """Bias of the queries, and of keys and values side by side."""
        if self.q_bias is not None and self.v_bias is not None:
            return self.q_bias, torch.cat([torch.zeros_like(self.v_bias), self.v_bias])
        if self.qkv.bias is None:
            return None, None
        query, read = self.qkv.bias.split([width, 2 * width])
        return query, read


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block, with layer scale when ``style.layer_scale`` is above 0."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, style: Style, grid: int = 0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, style, grid)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        scale = style.layer_scale
        self.gamma_1 = nn.Parameter(torch.full((width,), scale)) if scale else None
        self.gamma_2 = nn.Parameter(torch.full((width,), scale)) if scale else None

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        tap: Tap | None,
        keep: Tensor | None,
        columns: int = 0,
    ) -> Tensor:
        """[B, T, D] to [B, T, D]; ``keep`` [B, 2] scales the two residual branches (drop path).

        With ``columns`` above 0 only that many first tokens are read.
        """
        y = self.norm1(x)
        y = self.attn.read(y, columns, bias) if columns else self.attn(y, bias, tap)
        x = x + self._branch(y, self.gamma_1, None if keep is None else keep[:, 0])
        y = self.mlp(self.norm2(x))
        return x + self._branch(y, self.gamma_2, None if keep is None else keep[:, 1])

    @staticmethod
    def _branch(y: Tensor, gamma: Tensor | None, keep: Tensor | None) -> Tensor:
        if gamma is not None:
            y = gamma * y
        return y if keep is None else y * keep[:, None, None]


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    bias: Tensor | None = None,
    watch: tuple[TokenHook, Tensor] | None = None,
    keep: Tensor | None = None,
) -> list[Tensor]:
    """Runs the blocks in turn and returns every block's output.

    Args:
        blocks: of :class:`Block`.
        x: tokens [B, T, D].
        bias: additive attention bias shared by the blocks.
        watch: a hook and the hidden mask [B, T] when these tokens hold mask tokens.
        keep: drop-path factors [B, depth, 2].
    """
    outputs = []
    for index, block in enumerate(blocks):
        tap = None if watch is None else make_tap(watch, index, len(blocks))
        x = block(x, bias, tap, None if keep is None else keep[:, index])
        outputs.append(x)
    return outputs


def run_carried(
    blocks: nn.ModuleList,
    x: Tensor,
    carried: Carried,
    bias: Tensor | None = None,
    keep: Tensor | None = None,
) -> list[Tensor]:
    """:func:`run_blocks` for tokens [B, K, D] laid out as ``carried`` says, ``bias`` likewise.

    Layers in which nobody reads masked tokens compute no key and no value of theirs; those before
    masked tokens enter see visible ones alone.
    """
    columns, entry, outputs = carried.columns, carried.plan.entry, []
    narrow = add(None if bias is None else bias[..., :columns], carried.unread)
    wide = None if all(carried.plan.closed) else add(bias, carried.padding)
    early = None if narrow is None else narrow[:, :, :columns]
    entering, x = x, x[:, :columns] if entry else x
    for index, block in enumerate(blocks):
        factors = None if keep is None else keep[:, index]
        if index == entry > 0:
            x = carried.join(x, entering)
        if index < entry:
            x = block(x, early, None, factors)
        elif carried.plan.closed[index - entry]:
            x = block(x, narrow, None, factors, columns)
        else:
            watch = carried.hook, carried.hidden
            x = block(x, wide, make_tap(watch, index - entry, len(blocks) - entry), factors)
        outputs.append(x)
    return outputs


def make_tap(watch: tuple[TokenHook, Tensor], index: int, count: int) -> Tap:
    """Presents one layer to a hook as a :class:`TokenLayer` (class token first)."""
    hook, hidden = watch

    def tap(tokens: Tensor, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor | None:
        scale = query.shape[-1] ** -0.5
        return hook.attention(TokenLayer(index, count, tokens, query, key, hidden, 1, scale, bias))

    return tap


def drop_path_factors(noise: SampleStream | None, rate: float, depth: int) -> Tensor | None:
    """Factors [B, depth, 2]: 0 where a branch is dropped, else 1/keep; rates rise with depth."""
    if noise is None or not rate:
        return None
    draws = noise.uniform(2 * depth).unflatten(1, (depth, 2))
    rates = torch.linspace(0, rate, depth, device=draws.device)[:, None]
    return (draws >= rates).float() / (1 - rates)


class VisionTransformer(nn.Module):
    """Encoder: patch embedding, class token, positions, blocks, final norm."""

    def __init__(self, shape: VisionShape, style: Style) -> None:
        super().__init__()
        self.shape, self.style = shape, style
        self.patch_embed = PatchEmbed(shape)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        if style.positions == "sincos":
            table = sincos_positions(shape.width, shape.grid)
            self.pos_embed = nn.Parameter(table, requires_grad=False)
        if style.positions == "relative":
            self.rel_pos_bias = RelativePositionBias(shape.grid, shape.heads)
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, shape.mlp_ratio, style, shape.grid)
            for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width, eps=EPS) if style.final_norm else nn.Identity()

    def embed(self, images: Tensor) -> Tensor:
        """Patch embeddings [B, N, D], positions not yet added."""
        embedded: Tensor = self.patch_embed(patchify(images, self.shape.patch_size))
        return embedded

    def run(
        self,
        tokens: Tensor,
        noise: SampleStream | None = None,
        watch: tuple[TokenHook, Tensor] | None = None,
        carried: Carried | None = None,
    ) -> list[Tensor]:
        """Outputs [B, T, D] of every block for tokens that already carry class and position.

        With ``carried`` they are [B, K, D], in its order.
        """
        keep = drop_path_factors(noise, self.style.drop_path, self.shape.depth)
        if carried is not None:
            bias = self._bias_among(carried)
            return run_carried(self.blocks, carried.take(tokens), carried, bias, keep)
        bias = self.rel_pos_bias() if self.style.positions == "relative" else None
        return run_blocks(self.blocks, tokens, bias, watch, keep)

    def _bias_among(self, carried: Carried) -> Tensor | None:
        if self.style.positions != "relative":
            return None
        bias: Tensor = self.rel_pos_bias.among(carried.order, carried.read)
        return bias

    def prepend_class(self, tokens: Tensor) -> Tensor:
        """Puts the class token before the patches; adds its position when there is one."""
        cls_token: Tensor = self.cls_token
        if self.style.positions == "sincos":
            cls_token = cls_token + self.pos_embed[:, :1]
        return torch.cat([cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)

    def add_positions(self, tokens: Tensor) -> Tensor:
        """Adds the patches' fixed positions when there are any, [B, N, D]."""
        if self.style.positions != "sincos":
            return tokens
        return tokens + self.pos_embed[:, 1:].to(tokens.dtype)

    def tokens(self, images: Tensor, noise: SampleStream | None = None) -> Tensor:
        """Output of the last block for a whole image, final norm not applied, [B, 1 + N, D]."""
        return self.run(self.prepend_class(self.add_positions(self.embed(images))), noise)[-1]

    def features(self, images: Tensor, pool: str) -> Tensor:
        """Normalised features [B, D]: ``cls``, ``mean`` over the patches, or their ``tokens``."""
        x: Tensor = self.norm(self.tokens(images))
        if pool == "tokens":
            return x[:, 1:]
        return x[:, 0] if pool == "cls" else x[:, 1:].mean(1)


class ViTClassifier(VisionTransformer):
    """The encoder with a head. ``mean`` pooling norms after pooling (``fc_norm``), as in MAE.

    A sine-cosine table is only where fine-tuning starts: as in MAE's models_vit.py it learns.
    """

    def __init__(self, shape: VisionShape, style: Style, options: ClassifierOptions) -> None:
        super().__init__(shape, style)
        if style.positions == "sincos":
            self.pos_embed.requires_grad_(True)
        self.pool = options.pool
        if options.pool == "mean":
            self.norm = nn.Identity()
            self.fc_norm = nn.LayerNorm(shape.width, eps=EPS)
        self.head = Linear(shape.width, options.classes)

    def forward(self, images: Tensor, noise: SampleStream | None = None) -> Tensor:
        """Class logits [B, K]."""
        x = self.tokens(images, noise)
        pooled = self.fc_norm(x[:, 1:].mean(1)) if self.pool == "mean" else self.norm(x)[:, 0]
        with torch.autocast(pooled.device.type, enabled=False):  # half precision has ties
            logits: Tensor = self.head(pooled.to(self.head.weight.dtype))
        return logits

    def load_encoder(self, weights: Mapping[str, Tensor]) -> None:
        """Loads a pre-trained encoder; the head and its norm keep their values.

        A shared bias table is copied into every layer where the layers have tables of their own,
        as SimMIM's fine-tuning does (utils.py, remap_pretrained_keys_vit).

        Raises:
            RunError: naming what is missing or left over.
        """
        own = {n for n in self.state_dict() if n.startswith(("head.", "fc_norm."))}
        wanted = set(self.state_dict()) - own
        given = spread_table(weights, self.shape.depth) if self._tables_apart else dict(weights)
        if self.pool == "mean":
            given = {n: v for n, v in given.items() if not n.startswith("norm.")}
        if set(given) != wanted:
            missing, extra = sorted(wanted - set(given)), sorted(set(given) - wanted)
            raise RunError(f"the encoder does not fit: missing {missing}, left over {extra}.")
        self.load_state_dict(given, strict=False)

    @property
    def _tables_apart(self) -> bool:
        return self.style.positions == "relative_each"

    def no_weight_decay(self) -> set[str]:
        """Class token and positions, in every original's fine-tuning."""
        return {"cls_token", "pos_embed"}

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """Names by depth for timm's layer decay.

        Whatever is not named (norms of the output, a shared bias table, the head) learns at the
        full rate, as in MAE's and BEiT's lr_decay.py and optim_factory.py.
        """
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None)],
        }
