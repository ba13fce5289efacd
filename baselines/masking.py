"""Which patches are hidden: pure functions of per-sample random streams.

B images, N patches on a G x G grid; True means hidden. Masks depend on nothing but the stream,
so both arms of a comparison draw the same ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.api import SampleStream
from bench.errors import RunError


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


def count_in_cells(grid: int, cell: int, ratio: float) -> int:
    """Patches that :func:`random_cells` hides."""
    return math.ceil((grid // cell) ** 2 * ratio) * cell**2


ATTEMPTS = 10
"""Tries to place one block before giving up (masking_generator.py)."""

DRAWS = 4
"""Uniform numbers one try consumes: area, aspect, top, left."""


def blocks(stream: SampleStream, grid: int, most: int, min_block: int, min_aspect: float) -> Tensor:
    """BEiT and data2vec: hides random rectangles until ``most`` patches are hidden.

    A sample stops early when ten tries in a row add nothing, so counts are ragged and at most
    ``most`` (beit/masking_generator.py:28-91). All samples advance together, one try at a time.
    """
    batch, device = stream.size, _device(stream)
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


BLOCK_LIMIT = 5_000
"""Tries after which no rectangle can be said to fit: a few dozen is the rule."""

ORDER = DRAWS * BLOCK_LIMIT
"""Where draws start that follow those of rectangles."""


def exact_blocks(
    stream: SampleStream, grid: int, count: int, sizes: tuple[int, int], min_aspect: float
) -> Tensor:
    """BootMAE: hides random rectangles until exactly ``count`` patches are hidden, [B, N].

    A rectangle has ``sizes`` (least, most) patches; tries never give up
    (BootMAE masking_generator.py:55-93).

    Raises:
        RunError: if no rectangle of these sizes fits the grid.
    """
    least, most = sizes
    hidden = torch.zeros(stream.size, grid, grid, dtype=torch.bool, device=_device(stream))
    lines = torch.arange(grid, device=hidden.device)
    log_aspect = (math.log(min_aspect), math.log(1 / min_aspect))
    for attempt in range(BLOCK_LIMIT):
        room = count - hidden.flatten(1).sum(1)
        if not (room > 0).any():
            return hidden.flatten(1)
        draws = stream.uniform(DRAWS, offset=DRAWS * attempt).double()
        area = room.clamp(max=most)
        rectangle = _rectangle(draws, area, (grid, least), log_aspect, lines)
        added = (rectangle & ~hidden).flatten(1).sum(1)
        hidden |= rectangle & ((added > 0) & (added <= room))[:, None, None]
    raise RunError(
        f"no rectangles of {least} to {most} patches fill {count} of {grid} x {grid} patches. "
        "Lower the smallest size of a block."
    )


def rolled(stream: SampleStream, blocks: Tensor, show: int, most: int) -> Tensor:
    """BootMAE: what is hidden, [B, N], when of ``blocks`` [B, N] 0 to ``most`` patches may show.

    Patches are put in random order, those outside of the blocks first; the order is rolled by r,
    uniform on 0 to ``most``, and its first ``show`` stay visible: r of the last and the others
    of the first (BootMAE utils.py:596-603, where one r serves a process's whole batch).
    """
    count = blocks.shape[1]
    draws = stream.uniform(count + 1, offset=ORDER)
    order = (draws[:, :count].double() + blocks).argsort(dim=1, stable=True)
    roll = (draws[:, count:].double() * (most + 1)).long()
    rank = order.argsort(dim=1, stable=True)
    return (rank + roll) % count >= show


def _device(stream: SampleStream) -> torch.device:
    return stream.uniform(1).device


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
