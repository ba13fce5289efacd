"""Heterogeneity of masked and visible tokens, and what rows attend to: one value an image.

b images, G heads kept apart (or 1), R rows, C columns, D width; ``rows`` [b, R] and ``cols``
[b, C] are False at padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOOR = -1e9
"""Logit of a column that is not there: its weight is 0 and its entropy finite."""


def log_weights(affinity: Tensor, cols: Tensor) -> Tensor:
    """Log of the row softmax of S [b, G, R, C] over the valid columns."""
    floored = affinity.clamp(min=_FLOOR).masked_fill(~cols[:, None, None, :], _FLOOR)
    return floored.log_softmax(-1)


def row_entropy(affinity: Tensor, cols: Tensor) -> Tensor:
    """Entropy of each row's softmax over valid columns, divided by its maximum log C: [b, G, R].

    A row with a single column has entropy 0.
    """
    log = log_weights(affinity, cols)
    most = cols.sum(1).clamp(min=2).log()
    return -(log.exp() * log).sum(-1) / most[:, None, None]


def row_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Mean over heads and valid rows of ``values`` [b, G, R]: [b], 0 where there is no row."""
    kept = (values.mean(1) * rows).sum(1)
    return kept / rows.sum(1).clamp(min=1)


def entropy_heterogeneity(affinity: Tensor, rows: Tensor, cols: Tensor, tau: float) -> Tensor:
    """H [b] in [0, 1]: mean entropy of masked rows over visible columns, over log|V|.

    Reading: heterogeneity, default. H = mean_{i∈M} entropy(softmax_{j∈V}(S_ij / τ)) / log|V|.
    Only visible columns may enter: over all columns the sign turns, since masked tokens attend
    to each other.
    """
    return row_mean(row_entropy(affinity / tau, cols), rows)


def cosine_heterogeneity(tokens: Tensor, masked: Tensor, visible: Tensor) -> Tensor:
    """H [b] in [0, 1]: half the mean cosine distance of masked and visible tokens [b, T, D].

    Reading: heterogeneity, alternative. H = mean_{i∈M, j∈V} (1 - cos(x_i, x_j)) / 2. The mean
    cosine of all pairs is the product of the two mean directions, so no map is formed.
    """
    direction = F.normalize(tokens.float(), dim=-1)
    cosine = (_mean_over(direction, masked) * _mean_over(direction, visible)).sum(-1)
    return (1 - cosine) / 2


def _mean_over(x: Tensor, chosen: Tensor) -> Tensor:
    weight = chosen / chosen.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("btd,bt->bd", x, weight.to(x.dtype))


def mass(affinity: Tensor, rows: Tensor, cols: Tensor, counted: Tensor) -> Tensor:
    """Attention that rows give to the ``counted`` columns [b], in [0, 1].

    ``counted`` is [b, R or 1, C], among all columns; mean over rows i of Σ_{j counted} a_ij.
    """
    weights = log_weights(affinity, cols).exp()
    return row_mean((weights * counted[:, None]).sum(-1), rows)
