"""Which patches are hidden: pure functions of per-sample random streams.

B images, N patches on a G x G grid; True means hidden. Masks depend on nothing but the stream,
so both arms of a comparison draw the same ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.api import SampleStream


def hide_first(noise: Tensor, count: int) -> Tensor:
    """Hides the ``count`` cells with the smallest noise of each row; [B, K] to bool [B, K]."""
    ranks = noise.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return ranks < count


def random_patches(stream: SampleStream, patches: int, ratio: float) -> Tensor:
    """MAE: hides N - int(N * (1 - ratio)) patches at random (models_mae.py:123-148)."""
    keep = int(patches * (1 - ratio))
    return hide_first(stream.uniform(patches), patches - keep)


def random_cells(stream: SampleStream, grid: int, cell: int, ratio: float) -> Tensor:
    """SimMIM: hides ceil(cells * ratio) square cells of ``cell`` patches a side.

    Source: SimMIM data_simmim.py:34-46 (at 224 px: 30 of 49 cells, so 120 of 196 patches).
    """
    side = grid // cell
    hidden = hide_first(stream.uniform(side**2), math.ceil(side**2 * ratio))
    square = hidden.unflatten(1, (side, side))
    return square.repeat_interleave(cell, 1).repeat_interleave(cell, 2).flatten(1)


ATTEMPTS = 10
"""Tries to place one block before giving up (masking_generator.py)."""

DRAWS = 4
"""Uniform numbers one try consumes: area, aspect, top, left."""


def blocks(stream: SampleStream, grid: int, most: int, min_block: int, min_aspect: float) -> Tensor:
    """BEiT and data2vec: hides random rectangles until ``most`` patches are hidden.

    A sample stops early when ten tries in a row add nothing, so counts are ragged and at most
    ``most`` (beit/masking_generator.py:28-91). All samples advance together, one try at a time.
    """
    batch, device = stream.size, stream.uniform(1).device
    hidden = torch.zeros(batch, grid, grid, dtype=torch.bool, device=device)
    misses = torch.zeros(batch, dtype=torch.long, device=device)
    lines = torch.arange(grid, device=device)
    log_aspect = (math.log(min_aspect), math.log(1 / min_aspect))
    attempt = 0
    while True:
        room = most - hidden.flatten(1).sum(1)
        active = (room > 0) & (misses < ATTEMPTS)
        if not active.any():
            return hidden.flatten(1)
        draws = stream.uniform(DRAWS, offset=DRAWS * attempt).double()
        rectangle = _rectangle(draws, room, (grid, min_block), log_aspect, lines)
        added = (rectangle & ~hidden).flatten(1).sum(1)
        placed = active & (added > 0) & (added <= room)
        hidden |= rectangle & placed[:, None, None]
        misses = torch.where(placed, 0, misses + 1)
        attempt += 1


def _rectangle(
    draws: Tensor,
    room: Tensor,
    limits: tuple[int, int],
    log_aspect: tuple[float, float],
    lines: Tensor,
) -> Tensor:
    """One candidate block a sample, bool [B, G, G]; empty where it does not fit the grid."""
    grid, smallest = limits
    area = smallest + draws[:, 0] * (room - smallest)
    aspect = torch.exp(log_aspect[0] + draws[:, 1] * (log_aspect[1] - log_aspect[0]))
    height = (area * aspect).sqrt().round().long()
    width = (area / aspect).sqrt().round().long()
    fits = (height < grid) & (width < grid)
    top = (draws[:, 2] * (grid - height + 1)).long()
    left = (draws[:, 3] * (grid - width + 1)).long()
    rows = (lines >= top[:, None]) & (lines < (top + height)[:, None])
    columns = (lines >= left[:, None]) & (lines < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :] & fits[:, None, None]
