"""ConMIM's projector: three layers on every token, with batch norms over groups of images.

B images, T tokens, D width, g images of a group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.linear import Linear

EPS = 1e-5
"""Epsilon of PyTorch's batch norms, kept by the original."""


class GroupedBatchNorm(nn.Module):
    """Batch norm over all tokens of each group of ``images`` consecutive images.

    In the original a group is what one process holds. Statistics are always those of the batch,
    in evaluation mode too: nothing ever reads running ones, so none are kept.
    """

    def __init__(self, width: int, images: int, affine: bool = True) -> None:
        super().__init__()
        self.images = images
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        if not self.images or len(x) <= self.images:  # one group: no copy
            return self._normed(x)
        return torch.cat([self._normed(group) for group in x.split(self.images)])

    def _normed(self, group: Tensor) -> Tensor:
        rows = group.flatten(0, 1)
        normed = F.batch_norm(rows, None, None, self.weight, self.bias, training=True, eps=EPS)
        return normed.view_as(group)


def projector(width: int, hidden: int, out: int, images: int) -> nn.Sequential:
    """[B, T, D] to [B, T, out]; no linear layer has a bias, and the last norm none either.

    Source: modeling_pretrain.py:104-120.
    """
    return nn.Sequential(
        Linear(width, hidden, bias=False),
        GroupedBatchNorm(hidden, images),
        nn.ReLU(inplace=True),
        Linear(hidden, hidden, bias=False),
        GroupedBatchNorm(hidden, images),
        nn.ReLU(inplace=True),
        Linear(hidden, out, bias=False),
        GroupedBatchNorm(out, images, affine=False),
    )
