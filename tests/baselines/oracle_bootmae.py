"""BootMAE written slowly from its equations, in float64, one image and one patch at a time.

Every patch is predicted and weighed, hidden or not, as in the published sums over whole images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.baselines.oracle import Weights, block, embed, gelu, norm, sincos


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Rows of q over columns of k, head by head; [T, I] and [S, I] to [T, I]."""
    d = q.shape[1] // heads
    mixed = []
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        logits = q[:, own] @ k[:, own].T / math.sqrt(d)
        mixed.append(torch.exp(logits - logits.logsumexp(1, keepdim=True)) @ v[:, own])
    return torch.cat(mixed, 1)


def decoder_block(x: Tensor, memory: Tensor, w: Weights, prefix: str, heads: int) -> Tensor:
    """Self-attention, then cross-attention to the encoder's tokens, then the MLP."""

    def get(name: str) -> Tensor:
        return w[prefix + name]

    def normed(y: Tensor, name: str) -> Tensor:
        return norm(y, get(f"{name}.weight"), get(f"{name}.bias"), 1e-6)

    y = normed(x, "norm1")
    inner = len(get("attn.q_bias"))
    rows = [get("attn.qkv.weight")[i * inner : (i + 1) * inner] for i in range(3)]
    q, k, v = y @ rows[0].T + get("attn.q_bias"), y @ rows[1].T, y @ rows[2].T + get("attn.v_bias")
    mixed = attend(q, k, v, heads)
    x = x + mixed @ get("attn.proj.weight").T + get("attn.proj.bias")

    y, read = normed(x, "norm3"), normed(memory, "norm4")
    q = y @ get("c_attn.q.weight").T + get("c_attn.q_bias")
    k = read @ get("c_attn.kv.weight")[:inner].T
    v = read @ get("c_attn.kv.weight")[inner:].T + get("c_attn.v_bias")
    mixed = attend(q, k, v, heads)
    x = x + mixed @ get("c_attn.proj.weight").T + get("c_attn.proj.bias")

    y = gelu(normed(x, "norm2") @ get("mlp.fc1.weight").T + get("mlp.fc1.bias"))
    return x + y @ get("mlp.fc2.weight").T + get("mlp.fc2.bias")


def table(width: int, grid: int) -> Tensor:
    """Positions whose first half is the row's: MAE's with row and column exchanged."""
    return torch.stack([sincos(width, i % grid, i // grid) for i in range(grid**2)])


def encode(image: Tensor, w: Weights, prefix: str, sizes: tuple[int, int, int], seen: Tensor):
    """Outputs [T, D] of every block for the patches in ``seen``, class token first."""
    patch, heads, grid = sizes
    x = embed(image, w, prefix, patch)
    x = torch.cat([w[prefix + "cls_token"][0], (x + table(x.shape[1], grid))[seen]])
    outputs = []
    while f"{prefix}blocks.{len(outputs)}.norm1.weight" in w:
        x = block(x, w, f"{prefix}blocks.{len(outputs)}.", heads, None)
        outputs.append(x)
    return outputs


def decode(
    latent: Tensor, memory: Tensor, mask: Tensor, w: Weights, name: str, sizes: tuple[int, int, int]
) -> Tensor:
    """Normed tokens [N, E] of one decoder; positions on the mask tokens and on no other."""
    _, heads, grid = sizes
    x = latent @ w[f"{name}.embed.weight"].T + w[f"{name}.embed.bias"]
    width = x.shape[1]
    tokens, places, shown = [x[0]], table(width, grid), 1
    for i, hidden in enumerate(mask.tolist()):
        tokens.append(w[f"{name}.mask_token"][0, 0] + places[i] if hidden else x[shown])
        shown += not hidden
    x, depth = torch.stack(tokens), 0
    while f"{name}.blocks.{depth}.norm1.weight" in w:
        x = decoder_block(x, memory, w, f"{name}.blocks.{depth}.", heads)
        depth += 1
    return norm(x[1:], w[f"{name}.norm.weight"], w[f"{name}.norm.bias"], 1e-6)


def pixels(tokens: Tensor, w: Weights, grid: int) -> Tensor:
    """A picture [C, S, S] by a transposed convolution, patch by patch."""
    weight, bias = w["pixel_head.weight"], w["pixel_head.bias"]
    rows = []
    for r in range(grid):
        row = [torch.einsum("e,ecab->cab", tokens[r * grid + c], weight) for c in range(grid)]
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1) + bias[:, None, None]


def normalised(image: Tensor, patch: int) -> Tensor:
    """Each channel of each patch to mean 0 and biased variance 1, epsilon 1e-5 under the root."""
    picture = torch.zeros_like(image)
    channels, side, _ = image.shape
    for c in range(channels):
        for top in range(0, side, patch):
            for left in range(0, side, patch):
                at = (c, slice(top, top + patch), slice(left, left + patch))
                values = image[at]
                mean = values.sum() / values.numel()
                variance = ((values - mean) ** 2).sum() / values.numel()
                picture[at] = (values - mean) / torch.sqrt(variance + 1e-5)
    return picture


def weights_of(mask: Tensor, grid: int) -> Tensor:
    """M (1 + A(M)) of each patch, A the mean of nine places, those beyond the border empty."""
    at = mask.view(grid, grid).double()
    found = torch.zeros(grid, grid, dtype=torch.float64)
    for r in range(grid):
        for c in range(grid):
            around = at[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].sum() / 9
            found[r, c] = at[r, c] * (1 + around)
    return found.flatten()


def bootmae_losses(
    w: Weights, images: Tensor, hidden: Tensor, sizes: tuple[int, int, int], target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The pixel and the feature loss; ``target`` None: the normalised pixels, else raw ones."""
    patch, _, grid = sizes
    pixel, feature = [], []
    for image, mask in zip(images, hidden, strict=True):
        outputs = encode(image, w, "vit.", sizes, ~mask)
        latent = norm(outputs[-1], w["vit.norm.weight"], w["vit.norm.bias"], 1e-6)
        weight = weights_of(mask, grid)

        drawn = pixels(decode(latent, outputs[0], mask, w, "pixel_decoder", sizes), w, grid)
        wanted = normalised(image, patch) if target is None else image
        spread = weight.view(grid, grid).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
        pixel.append((spread * (drawn - wanted) ** 2).mean())

        found = decode(latent, outputs[-1], mask, w, "feature_decoder", sizes)
        found = found @ w["feature_head.weight"].T + w["feature_head.bias"]
        everything = torch.ones_like(mask)
        with torch.no_grad():
            truth = encode(image, w, "teacher.", sizes, everything)[-1][1:]
        error = (norm(truth, None, None, 1e-6) - norm(found, None, None, 1e-6)) ** 2
        feature.append((weight[:, None] * error).mean())
    share = hidden.double().mean()
    return torch.stack(pixel).mean() / share, torch.stack(feature).mean() / share
