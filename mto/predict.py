"""Beyond the paper, off by default: how many hidden patches are carried, and from which layer on.

Where no token reads a masked one, any of them can be left out without changing the rest, and the
first layers can do without them. Else (visible rows read them by default) it is another model.
CrossMAE (arXiv 2401.14391) predicts a share of the patches in MAE's decoder. B images, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mto.config import MTOConfig


def share_now(config: MTOConfig, progress: float) -> float:
    """Share of the hidden patches to predict when ``progress`` of the run is done, in (0, 1]."""
    if config.predict_time == "constant":
        return config.predict_share
    return config.predict_share + (1 - config.predict_share) * progress


def chosen_patches(draws: Tensor, hidden: Tensor, share: float) -> Tensor:
    """The ``share`` of each image's ``hidden`` patches [B, N] with the smallest ``draws`` [B, N].

    Counts round to the nearest, and to one at least, so equal masks give equal counts.
    """
    rank = draws.masked_fill(~hidden, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    wanted = (hidden.sum(1, keepdim=True) * share).round().clamp(min=1)
    return hidden & (rank < wanted)
