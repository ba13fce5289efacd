"""Masks drawn for a whole epoch are those drawn step by step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines import masking
from bench.data import load
from bench.machine.world import World
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train import masks
from bench.train.loop import Session
from bench.train.masks import Masks
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.conftest import tiny_study


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


def test_processes_do_not_share_the_draws_of_attention_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What draws from the global generator draws apart on each, and again the same."""
    config = tiny_study("data2vec", more=["data2vec.attn_drop=0.1"]).cells[0].config
    images = load.load(config, "")
    monkeypatch.setattr(World, "total", lambda self, value: value)

    def job(rank: int, size: int) -> Any:
        world, monitor = World(rank, size), Monitor(RunFolder(tmp_path), 1e9)
        session = Session(torch.device("cpu"), Streams(0, 0), monitor, world=world)
        return Pretraining(build_method(config), images, config, session)._job()

    step = next(job(0, 1).feed.epoch(0))  # the same images on both

    def loss(rank: int) -> float:
        torch.manual_seed(0)  # as on every process at the beginning of a step
        (found,) = job(rank, 2).losses(step, 0, 0)
        return float(found.detach())

    assert loss(0) == loss(0) != loss(1)
