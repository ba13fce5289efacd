"""Attention's own shapes."""

from __future__ import annotations

import torch

from baselines.attention import attend, attend_to


def test_heads_of_no_images_are_empty() -> None:
    """Of several processes one may have no image of a last batch."""
    assert attend(torch.zeros(0, 5, 24), heads=2).shape == (0, 5, 8)
    assert attend_to(torch.zeros(0, 5, 8), torch.zeros(0, 3, 16), heads=2).shape == (0, 5, 8)
