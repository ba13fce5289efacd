"""The vision transformer all baselines share, its state under timm's names.

With a fused qkv bias and absolute positions the names are those of timm's ``VisionTransformer``
(MAE); with q and v biases, layer scale and a shared relative position bias those of timm's
``Beit`` (SimMIM, data2vec). B images, N patches, T tokens, D width, H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.patches import patchify
from bench.api import ClassifierOptions, SampleStream, TokenHook, TokenLayer, VisionShape

EPS = 1e-6
"""LayerNorm epsilon of every original (Hugging Face defaults to 1e-12)."""

Tap = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor | None]
"""Called with (tokens, query, key, bias); returns a bias to add, or None."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What differs between the encoders: positions, biases, layer scale, norm and dropping."""

    positions: Literal["sincos", "relative", "none"] = "sincos"
    split_bias: bool = False
    layer_scale: float = 0.0
    final_norm: bool = True
    drop_path: float = 0.0
    attn_drop: float = 0.0


def sincos_positions(width: int, grid: int) -> Tensor:
    """Fixed table [1, 1 + N, D], zeros for the class token, MAE's layout (float64 arithmetic).

    The first half of the channels encodes the column, the second the row; within each half sines
    come first (util/pos_embed.py:28, 42-68).
    """
    omega = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * omega
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    column = line.repeat(grid, 1)
    row = line.repeat_interleave(grid, 0)
    table = torch.cat([column, row], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table])[None].float()


class PatchEmbed(nn.Module):
    """Linear embedding of patches; the weight is kept as a convolution's, as everywhere else."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.patch = shape.patch_size
        self.proj = nn.Conv2d(shape.channels, shape.width, self.patch, stride=self.patch)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, C*p*p] to [B, N, D]."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Fused multi-head self-attention with one additive bias and an optional tap on its inputs."""

    def __init__(self, width: int, heads: int, split_bias: bool, drop: float = 0.0) -> None:
        super().__init__()
        self.heads, self.drop, self.scale = heads, drop, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=not split_bias)
        self.q_bias = nn.Parameter(torch.zeros(width)) if split_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if split_bias else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None, tap: Tap | None = None) -> Tensor:
        """[B, T, D] to [B, T, D]; ``bias`` broadcasts to [B, H, T, T]."""
        b, t, width = x.shape
        qkv_bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, qkv_bias)
        q, k, v = qkv.view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        extra = None if tap is None else tap(x, q, k, bias)
        if extra is not None:
            bias = extra if bias is None else bias + extra
        drop = self.drop if self.training else 0.0
        mask = None if bias is None else bias.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        return self.proj(out.transpose(1, 2).reshape(b, t, width))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block, with layer scale when ``style.layer_scale`` is above 0."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, style: Style) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, style.split_bias, style.attn_drop)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        scale = style.layer_scale
        self.gamma_1 = nn.Parameter(torch.full((width,), scale)) if scale else None
        self.gamma_2 = nn.Parameter(torch.full((width,), scale)) if scale else None

    def forward(
        self, x: Tensor, bias: Tensor | None, tap: Tap | None, keep: Tensor | None
    ) -> Tensor:
        """[B, T, D] to [B, T, D]; ``keep`` [B, 2] scales the two residual branches (drop path)."""
        y = self.attn(self.norm1(x), bias, tap)
        x = x + self._branch(y, self.gamma_1, None if keep is None else keep[:, 0])
        y = self.mlp(self.norm2(x))
        return x + self._branch(y, self.gamma_2, None if keep is None else keep[:, 1])

    @staticmethod
    def _branch(y: Tensor, gamma: Tensor | None, keep: Tensor | None) -> Tensor:
        if gamma is not None:
            y = gamma * y
        return y if keep is None else y * keep[:, None, None]


class RelativePositionBias(nn.Module):
    """One bias table shared by all layers, BEiT's indexing (beit/modeling_finetune.py)."""

    def __init__(self, grid: int, heads: int) -> None:
        super().__init__()
        distances = (2 * grid - 1) ** 2 + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(distances, heads))
        self.register_buffer("relative_position_index", relative_index(grid), persistent=False)

    def forward(self) -> Tensor:
        """Additive bias [1, H, T, T] for T = 1 + N."""
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        bias = self.relative_position_bias_table[index.flatten()]
        return bias.view(*index.shape, -1).permute(2, 0, 1).contiguous()[None]


def relative_index(grid: int) -> Tensor:
    """Row of the bias table for each pair of tokens, [1 + N, 1 + N]; the class token's last."""
    lines = torch.arange(grid)
    places = torch.stack(torch.meshgrid(lines, lines, indexing="ij")).flatten(1)
    offset = (places[:, :, None] - places[:, None, :]) + grid - 1
    distances = (2 * grid - 1) ** 2 + 3
    index = torch.zeros(grid**2 + 1, grid**2 + 1, dtype=torch.long)
    index[1:, 1:] = offset[0] * (2 * grid - 1) + offset[1]
    index[0, :], index[:, 0], index[0, 0] = distances - 3, distances - 2, distances - 1
    return index


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
            Block(shape.width, shape.heads, shape.mlp_ratio, style) for _ in range(shape.depth)
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
    ) -> list[Tensor]:
        """Outputs [B, T, D] of every block for tokens that already carry class and position."""
        keep = drop_path_factors(noise, self.style.drop_path, self.shape.depth)
        bias = self.rel_pos_bias() if self.style.positions == "relative" else None
        return run_blocks(self.blocks, tokens, bias, watch, keep)

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
        """Pooled, normalised features [B, D]: ``cls``, or ``mean`` over the patches."""
        x = self.norm(self.tokens(images))
        pooled: Tensor = x[:, 0] if pool == "cls" else x[:, 1:].mean(1)
        return pooled


class ViTClassifier(VisionTransformer):
    """The encoder with a head. ``mean`` pooling norms after pooling (``fc_norm``), as in MAE."""

    def __init__(self, shape: VisionShape, style: Style, options: ClassifierOptions) -> None:
        super().__init__(shape, style)
        self.pool = options.pool
        if options.pool == "mean":
            self.norm = nn.Identity()
            self.fc_norm = nn.LayerNorm(shape.width, eps=EPS)
        self.head = nn.Linear(shape.width, options.classes)

    def forward(self, images: Tensor, noise: SampleStream | None = None) -> Tensor:
        """Class logits [B, K]."""
        x = self.tokens(images, noise)
        pooled = self.fc_norm(x[:, 1:].mean(1)) if self.pool == "mean" else self.norm(x)[:, 0]
        logits: Tensor = self.head(pooled)
        return logits

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """Names by depth for timm's layer decay; the bias table goes with the last group (BEiT)."""
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^fc_norm|^rel_pos_bias", (99999,))],
        }


Rule = Callable[[str, nn.Parameter, torch.Generator], None]


def initialise(module: nn.Module, rule: Rule, generator_for: Callable[[str], Any]) -> None:
    """Applies ``rule`` to every trainable parameter, each with the generator of its own name."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                rule(name, parameter, generator_for(name))


def init_mae(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """MAE's rule: Xavier for every matrix (qkv and the patch embedding as one), N(0, 0.02) tokens.

    Source: models_mae.py:65-93.
    """
    if name.endswith(("cls_token", "mask_token")):
        nn.init.normal_(parameter, std=0.02, generator=generator)
    elif parameter.ndim > 1:
        nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
    else:
        _init_vector(name, parameter)


def init_beit(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """The rule of SimMIM and data2vec: normal of std 0.02 cut at one std, deeper outputs smaller.

    Source: simmim.py:66-67, vision_transformer.py (fix_init_weight); BEiT modeling_pretrain.py.
    """
    if name.endswith("relative_position_bias_table"):
        nn.init.zeros_(parameter)
    elif parameter.ndim > 1:
        nn.init.trunc_normal_(parameter, std=0.02, a=-0.02, b=0.02, generator=generator)
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            layer = int(name.split("blocks.")[1].split(".")[0])
            parameter.div_(math.sqrt(2.0 * (layer + 1)))
    else:
        _init_vector(name, parameter)


def _init_vector(name: str, parameter: nn.Parameter) -> None:
    """Norm weights to 1 and biases to 0; layer scale keeps the constant it was made with."""
    if name.endswith("bias"):
        nn.init.zeros_(parameter)
    elif "gamma" not in name:
        nn.init.ones_(parameter)
