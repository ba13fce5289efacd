"""A test part of each class's images, where a data set has none: ``data.holdout``."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import DataError
from bench.streams import Streams

ADVICE = "To test on a fifth of each class, add data.holdout=0.2."


def check_share(share: float, test: str) -> None:
    """Refuses to hold a share out where there is a part ``test``; empty for none.

    Raises:
        DataError: naming it.
    """
    if share and test:
        raise DataError(
            f"data.holdout={share:g} would be ignored: there is the test part '{test}'. "
            "Set data.holdout=0, or take that part away."
        )


def held_out(labels: Tensor, share: float) -> list[bool]:
    """Which images test: the share of each class, at least one and not all, the same every time."""
    ranks = Streams(0, 0).samples("holdout", 0, torch.arange(len(labels))).bits(1)[:, 0]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for k in labels.unique():
        members = (labels == k).nonzero()[:, 0]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[ranks[members].argsort(stable=True)[:count]]] = True
    found: list[bool] = chosen.tolist()
    return found
