"""Positions: MAE's fixed sine-cosine table and BEiT's relative position bias.

N patches on a G x G grid, T = 1 + N tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UsageError


def sincos_positions(width: int, grid: int, row_first: bool = False) -> Tensor:
    """Fixed table [1, 1 + N, D], zeros for the class token, MAE's layout (float64 arithmetic).

    The first half of the channels encodes the column, the second the row; within each half sines
    come first (util/pos_embed.py:28, 42-68). With ``row_first`` the two halves are exchanged.

    Raises:
        UsageError: if the width is no multiple of 4: two axes, each with sines and cosines.
    """
    if width % 4:
        raise UsageError(f"a width of {width} is no multiple of 4, as sine-cosine positions need.")
    if torch.get_default_device().type == "meta":  # a shape is asked for, whatever its size
        return torch.empty(1, 1 + grid**2, width)
    with torch.device("cpu"):
        omega = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        angles = torch.arange(grid, dtype=torch.float64)[:, None] * omega
        line = torch.cat([angles.sin(), angles.cos()], dim=1)
        column = line.repeat(grid, 1)
        row = line.repeat_interleave(grid, 0)
        table = torch.cat([row, column] if row_first else [column, row], dim=1)
        table = torch.cat([torch.zeros(1, width, dtype=torch.float64), table])[None].float()
    return table.to(torch.get_default_device())


def bias_table(grid: int, heads: int) -> nn.Parameter:
    """A bias for each offset of two patches and for the class token's three cases, [.., H]."""
    return nn.Parameter(torch.zeros((2 * grid - 1) ** 2 + 3, heads))


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Additive bias [1, H, T, T] of a table [.., H] at rows [T, T]."""
    return table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1).contiguous()[None]


class RelativePositionBias(nn.Module):
    """One bias table shared by all layers, BEiT's indexing (beit/modeling_finetune.py)."""

    def __init__(self, grid: int, heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = bias_table(grid, heads)
        self.register_buffer("relative_position_index", relative_index(grid), persistent=False)

    def forward(self) -> Tensor:
        """Additive bias [1, H, T, T] for T = 1 + N."""
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        return look_up(self.relative_position_bias_table, index)

    def among(self, places: Tensor, columns: int) -> Tensor:
        """Additive bias [B, H, K, C] of tokens at ``places`` [B, K] over the first C of them."""
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        chosen = index[places[:, :, None], places[:, None, :columns]]
        bias = F.embedding(chosen, self.relative_position_bias_table)
        return bias.permute(0, 3, 1, 2).contiguous()


def relative_index(grid: int) -> Tensor:
    """Row of the bias table for each pair of tokens, [1 + N, 1 + N]; the class token's last."""
    lines = torch.arange(grid)
    places = torch.stack(torch.meshgrid(lines, lines, indexing="ij")).flatten(1)
    offset = (places[:, :, None] - places[:, None, :]) + grid - 1
    distances = (2 * grid - 1) ** 2 + 3
    index = torch.zeros(grid**2 + 1, grid**2 + 1, dtype=torch.long)
    index[1:, 1:] = offset[0] * (2 * grid - 1) + offset[1]
    index[0, :], index[:, 0], index[0, 0] = distances - 3, distances - 2, distances - 1
    return index


SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"


def spread_table(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Encoder weights with the shared bias table, if there is one, copied into each layer."""
    spread = {n: v for n, v in weights.items() if n != SHARED_TABLE}
    if SHARED_TABLE in weights:
        for layer in range(depth):
            name = f"blocks.{layer}.attn.relative_position_bias_table"
            spread[name] = weights[SHARED_TABLE].clone()
    return spread
