"""ConMIM written slowly from its equations, in float64: rows, groups and places one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.baselines.oracle import Weights, beit_blocks, norm


def batch_norm(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Each column to mean 0 and biased variance 1 over the rows of one group, epsilon 1e-5."""
    mean = rows.sum(0) / len(rows)
    variance = ((rows - mean) ** 2).sum(0) / len(rows)
    normed = (rows - mean) / torch.sqrt(variance + 1e-5)
    return normed if weight is None or bias is None else normed * weight + bias


def project(rows: Tensor, w: Weights, prefix: str) -> Tensor:
    """The three layers of the projector on the tokens of one group."""
    x = rows @ w[f"{prefix}0.weight"].T
    x = batch_norm(x, w[f"{prefix}1.weight"], w[f"{prefix}1.bias"]).clamp(min=0)
    x = x @ w[f"{prefix}3.weight"].T
    x = batch_norm(x, w[f"{prefix}4.weight"], w[f"{prefix}4.bias"]).clamp(min=0)
    return batch_norm(x @ w[f"{prefix}6.weight"].T, None, None)


def features(
    images: Tensor, masks: Tensor | None, w: Weights, tower: str, sizes: tuple[int, int, int]
) -> Tensor:
    """Unit features [b, N, E] of one group of images; the class token is in the statistics."""
    inner = {n.removeprefix(tower): v for n, v in w.items() if n.startswith(tower)}
    inner["mask_token"] = w["mask_token"]
    tokens = []
    for i, image in enumerate(images):
        x = beit_blocks(image, None if masks is None else masks[i], inner, "vit.", sizes)[-1]
        tokens.append(norm(x, inner["vit.norm.weight"], inner["vit.norm.bias"], 1e-6))
    rows = project(torch.cat(tokens), inner, "projector.")
    x = rows.view(len(images), -1, rows.shape[1])[:, 1:]
    return x / (x**2).sum(-1, keepdim=True).sqrt()


def conmim_loss(
    w: Weights,
    views: tuple[Tensor, Tensor],
    hidden: Tensor,
    sizes: tuple[int, int, int],
    settings: tuple[float, int],
) -> Tensor:
    """Minus the log share of each hidden place among all places of its image, averaged.

    ``views`` are the student's and the teacher's; ``settings`` temperature and images of a group.
    """
    temperature, group = settings
    losses = []
    for start in range(0, len(hidden), group):
        own = slice(start, start + group)
        a = features(views[0][own], hidden[own], w, "student.", sizes)
        with torch.no_grad():
            b = features(views[1][own], None, w, "teacher.", sizes)
        for i, mask in enumerate(hidden[own]):
            for place in mask.nonzero()[:, 0].tolist():
                likeness = torch.stack([(a[i, place] * key).sum() for key in b[i]]) / temperature
                losses.append(likeness.logsumexp(0) - likeness[place])
    return torch.stack(losses).mean()
