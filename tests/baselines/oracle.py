"""A vision transformer and three losses written slowly from the papers' equations, in float64.

Nothing here is taken from the package under test but parameter values: patches are cut pixel by
pixel, attention is a loop over heads, positions and biases are computed pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def cut(image: Tensor, patch: int, order: str) -> Tensor:
    """Patches of one image [C, S, S] in raster order, pixels in ``chw`` or ``hwc`` order."""
    channels, side, _ = image.shape
    rows = []
    for top in range(0, side, patch):
        for left in range(0, side, patch):
            pixels = []
            for a, b, c in _places(channels, patch, order):
                pixels.append(image[c, top + a, left + b])
            rows.append(torch.stack(pixels))
    return torch.stack(rows)


def _places(channels: int, patch: int, order: str) -> list[tuple[int, int, int]]:
    if order == "hwc":
        return [(a, b, c) for a in range(patch) for b in range(patch) for c in range(channels)]
    return [(a, b, c) for c in range(channels) for a in range(patch) for b in range(patch)]


def norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of each row, biased variance."""
    rows = []
    for row in x:
        mean = row.sum() / len(row)
        variance = ((row - mean) ** 2).sum() / len(row)
        rows.append((row - mean) / torch.sqrt(variance + eps))
    normed = torch.stack(rows)
    return normed if weight is None or bias is None else normed * weight + bias


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def sincos(width: int, row: int, column: int) -> Tensor:
    """MAE's position of one patch: column first, sines before cosines."""
    values = []
    for coordinate in (column, row):
        for function in (math.sin, math.cos):
            for i in range(width // 4):
                values.append(function(coordinate / 10000 ** (i / (width // 4))))
    return torch.tensor(values, dtype=torch.float64)


def pair_bias(table: Tensor, grid: int) -> Tensor:
    """BEiT's relative position bias [H, T, T], class token first."""
    tokens = grid * grid + 1
    bias = torch.zeros(table.shape[1], tokens, tokens, dtype=torch.float64)
    for i in range(tokens):
        for j in range(tokens):
            if i == j == 0:
                index = len(table) - 1
            elif i == 0:
                index = len(table) - 3
            elif j == 0:
                index = len(table) - 2
            else:
                down = (i - 1) // grid - (j - 1) // grid + grid - 1
                right = (i - 1) % grid - (j - 1) % grid + grid - 1
                index = down * (2 * grid - 1) + right
            bias[:, i, j] = table[index]
    return bias


def block(x: Tensor, w: Weights, prefix: str, heads: int, bias: Tensor | None) -> Tensor:
    """One pre-norm block on the tokens [T, D] of one image."""

    def get(name: str) -> Tensor:
        return w[prefix + name]

    width = x.shape[1]
    y = norm(x, get("norm1.weight"), get("norm1.bias"), 1e-6) @ get("attn.qkv.weight").T
    if prefix + "attn.qkv.bias" in w:
        y = y + get("attn.qkv.bias")
    else:
        y = y + torch.cat([get("attn.q_bias"), torch.zeros(width), get("attn.v_bias")])
    d = width // heads
    mixed = []
    for h in range(heads):
        q, k, v = (y[:, n * width + h * d : n * width + (h + 1) * d] for n in range(3))
        logits = q @ k.T / math.sqrt(d)
        if bias is not None:
            logits = logits + bias[h]
        mixed.append(torch.exp(logits - logits.logsumexp(1, keepdim=True)) @ v)
    out = torch.cat(mixed, 1) @ get("attn.proj.weight").T + get("attn.proj.bias")
    x = x + get("gamma_1") * out if prefix + "gamma_1" in w else x + out
    y = norm(x, get("norm2.weight"), get("norm2.bias"), 1e-6)
    y = gelu(y @ get("mlp.fc1.weight").T + get("mlp.fc1.bias"))
    y = y @ get("mlp.fc2.weight").T + get("mlp.fc2.bias")
    return x + get("gamma_2") * y if prefix + "gamma_2" in w else x + y


def embed(image: Tensor, w: Weights, prefix: str, patch: int) -> Tensor:
    """Patch embeddings [N, D] of one image."""
    weight = w[prefix + "patch_embed.proj.weight"].flatten(1)
    return cut(image, patch, "chw") @ weight.T + w[prefix + "patch_embed.proj.bias"]


def mae_loss(w: Weights, images: Tensor, hidden: Tensor, sizes: tuple[int, int, int, int]) -> float:
    """Equation of MAE section 3: mean squared error of normalised pixels at hidden patches."""
    patch, heads, decoder_heads, grid = sizes
    losses = []
    for image, mask in zip(images, hidden, strict=True):
        width = w["vit.cls_token"].shape[-1]
        table = torch.stack([sincos(width, i // grid, i % grid) for i in range(grid**2)])
        x = (embed(image, w, "vit.", patch) + table)[~mask]
        x = torch.cat([w["vit.cls_token"][0], x])
        for i in range(_depth(w, "vit.blocks.")):
            x = block(x, w, f"vit.blocks.{i}.", heads, None)
        x = norm(x, w["vit.norm.weight"], w["vit.norm.bias"], 1e-6)
        x = x @ w["decoder_embed.weight"].T + w["decoder_embed.bias"]
        full = w["mask_token"][0].repeat(grid**2, 1)
        full[~mask] = x[1:]
        narrow = full.shape[1]
        full = full + torch.stack([sincos(narrow, i // grid, i % grid) for i in range(grid**2)])
        x = torch.cat([x[:1], full])
        for i in range(_depth(w, "decoder_blocks.")):
            x = block(x, w, f"decoder_blocks.{i}.", decoder_heads, None)
        x = norm(x[1:], w["decoder_norm.weight"], w["decoder_norm.bias"], 1e-6)
        x = x @ w["decoder_pred.weight"].T + w["decoder_pred.bias"]
        for predicted, true in zip(x[mask], cut(image, patch, "hwc")[mask], strict=True):
            mean = true.sum() / len(true)
            variance = ((true - mean) ** 2).sum() / (len(true) - 1)
            losses.append(((predicted - (true - mean) / (variance + 1e-6).sqrt()) ** 2).mean())
    return float(torch.stack(losses).mean())


def beit_blocks(
    image: Tensor, mask: Tensor | None, w: Weights, prefix: str, sizes: tuple[int, int, int]
) -> list[Tensor]:
    """Outputs [T, D] of every block of SimMIM's and data2vec's encoder for one image."""
    patch, heads, grid = sizes
    x = embed(image, w, prefix, patch)
    if mask is not None:
        x = torch.where(mask[:, None], w["mask_token"][0], x)
    x = torch.cat([w[prefix + "cls_token"][0], x])
    bias = pair_bias(w[prefix + "rel_pos_bias.relative_position_bias_table"], grid)
    outputs = []
    for i in range(_depth(w, prefix + "blocks.")):
        x = block(x, w, f"{prefix}blocks.{i}.", heads, bias)
        outputs.append(x)
    return outputs


def simmim_loss(w: Weights, images: Tensor, hidden: Tensor, sizes: tuple[int, int, int]) -> float:
    """SimMIM equation 2: mean absolute error over the hidden pixels, official normaliser."""
    total, pixels = torch.zeros(()), 0
    for image, mask in zip(images, hidden, strict=True):
        x = beit_blocks(image, mask, w, "vit.", sizes)[-1]
        x = norm(x[1:], w["vit.norm.weight"], w["vit.norm.bias"], 1e-6)
        x = x @ w["decoder.0.weight"].flatten(1).T + w["decoder.0.bias"]
        total = total + (x - cut(image, sizes[0], "chw"))[mask].abs().sum()
        pixels += int(mask.sum()) * sizes[0] ** 2
    return float(total / (pixels + 1e-5) / images.shape[1])


def data2vec_loss(
    w: Weights, images: Tensor, hidden: Tensor, sizes: tuple[int, int, int], top: int, beta: float
) -> float:
    """data2vec equation 3: smooth L1 to the averaged, normalised top blocks of the teacher."""
    losses = []
    for image, mask in zip(images, hidden, strict=True):
        blocks = beit_blocks(image, None, w, "teacher.", sizes)[-top:]
        target = sum(norm(b[1:], None, None, 1e-5) for b in blocks) / top
        target = norm(target, None, None, 1e-5)[mask]
        x = beit_blocks(image, mask, w, "vit.", sizes)[-1]
        x = norm(x[1:], w["vit.norm.weight"], w["vit.norm.bias"], 1e-6)[mask]
        x = x @ w["lm_head.weight"].T + w["lm_head.bias"]
        for error in (x - target).abs().flatten():
            small = error < beta
            losses.append(0.5 * error**2 / beta if small else error - 0.5 * beta)
    return float(torch.stack(losses).mean())


def _depth(w: Weights, prefix: str) -> int:
    return 1 + max(int(n[len(prefix) :].split(".")[0]) for n in w if n.startswith(prefix))
