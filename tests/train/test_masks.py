"""Masks drawn for a whole epoch are those drawn step by step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from baselines import masking
from bench.streams import Streams
from bench.train import masks
from bench.train.masks import Masks


@pytest.mark.parametrize(
    "draw",
    [
        lambda stream: masking.random_patches(stream, 16, 0.6),
        lambda stream: masking.blocks(stream, 4, 10, 2, 0.3),
    ],
)
def test_together_or_one_by_one(draw, monkeypatch):
    method, ids = SimpleNamespace(draw_hidden=draw), torch.tensor([7, 2, 30])
    together = Masks(method, Streams(0, 1), 40)
    found = [together.of(epoch, ids) for epoch in (0, 1, 0)]
    monkeypatch.setattr(masks, "TOGETHER", 0)
    apart = Masks(method, Streams(0, 1), 40)
    wanted = [torch.cat([apart.of(epoch, ids[i : i + 1]) for i in range(3)]) for epoch in (0, 1, 0)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not torch.equal(found[0], found[1])
