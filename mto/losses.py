"""The losses of MTO as pure functions: one value an image, so that a mean is left to the caller.

b images, K layers read (in order of depth), N patches, D width. L_spa, L_e and L_r are the names
of the paper's summaries; the formulas are readings (README.md).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

_SMALL = 1e-6
"""Keeps the distance finite over a uniform image, and its gradient finite at 0."""


def spa_loss(leak: Tensor, sign: Literal["low", "high"] = "low") -> Tensor:
    """L_spa [b]: mean over layers of ``leak`` [K, b] in [0, 1], the mass (or entropy) of rows.

    Reading: "strengthen interaction between visible tokens", so that masked tokens do not affect
    visible representations; and, of entropies, low for rows that ought to pick visible tokens
    (a co-author's page), ``high`` for masked rows (a sister work's loss): then 1 - ``leak``.
    """
    return leak.mean(0) if sign == "low" else (1 - leak).mean(0)


def initial_loss(heterogeneity: Tensor, sign: Literal["high", "low"] = "high") -> Tensor:
    """L_e [b]: mean over the first layers of 1 - H, with H as [K, b]; of H where it is to be low.

    Reading: "maximise heterogeneity in the initial layer".
    """
    return (1 - heterogeneity).mean(0) if sign == "high" else heterogeneity.mean(0)


def ranking_loss(
    heterogeneity: Tensor,
    margin: float,
    form: Literal["adjacent", "pairwise"] = "adjacent",
    sign: Literal["falling", "rising"] = "falling",
) -> Tensor:
    """L_r [b]: Σ max(0, H^{l'} - H^l + margin) over layers l < l', with H as [K, b].

    Reading: "heterogeneity decreases gradually over the later layers"; ``rising`` turns the sign
    of the difference. ``adjacent`` takes l' = l + 1, ``pairwise`` every later l'. The hinge is
    taken per image, so that the mean over images does not depend on how a batch is split.
    """
    if sign == "rising":
        heterogeneity = -heterogeneity
    count = heterogeneity.shape[0]
    apart = 1 if form == "adjacent" else count - 1
    pairs = torch.triu_indices(count, count, 1, device=heterogeneity.device)
    early, late = pairs[:, pairs[1] - pairs[0] <= apart]
    return (heterogeneity[late] - heterogeneity[early] + margin).clamp(min=0).sum(0)


def token_distance(
    tokens: Tensor, mask_token: Tensor, form: Literal["standardised", "isotropic"] = "standardised"
) -> Tensor:
    """Distance [b] of the mask token [1, 1, D] from an image's patch embeddings [b, N, D].

    Reading: data singularity at the initial embedding. With μ and σ the mean and the standard
    deviation over the N patches: ``standardised`` is √(mean_d (m_d - μ_d)² / σ_d²), ``isotropic``
    is √(mean_d (m_d - μ_d)² / mean_d σ_d²). Only the mask token receives a gradient: otherwise
    the patch embeddings could meet a margin by collapsing.
    """
    patches = tokens.detach().float()
    mean = patches.mean(1)
    variance = (patches - mean[:, None]).square().mean(1)  # torch.var over dim 1 is 15 times slower
    offset = (mask_token.float()[:, 0] - mean).square()
    if form == "standardised":
        squared = (offset / (variance + _SMALL)).mean(-1)
    else:
        squared = offset.mean(-1) / (variance.mean(-1) + _SMALL)
    return (squared + _SMALL).sqrt()


def distance_loss(distance: Tensor, margin: float) -> Tensor:
    """Margin loss [b] on the distance: max(0, 1 - distance / margin), 0 once the margin is met."""
    return (1 - distance / margin).clamp(min=0)
