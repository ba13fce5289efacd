"""The digests of a pre-training see what its images, crops and masks were, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.data import load
from bench.data.batch import Feed, Step
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train import masks
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.conftest import tiny_study

CONFIG = tiny_study("mae", "2", more=["pretrain.augment.crop_scale=[0.3,1]"]).cells[0].config
Given = dict[tuple[int, int], tuple[Tensor, Tensor]]
"""Box and mask by (epoch, image)."""


class Recorded:
    """A feed and a mask source whose draws are read into, or taken from, a table."""

    def __init__(self, table: Given, replay: bool) -> None:
        self.table, self.replay, self.now = table, replay, (0, torch.empty(0))

    def over(self, feed: Feed) -> Any:
        self.steps, self.inner = feed.steps, feed
        return self

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        for step in self.inner.epoch(epoch, first):
            self.now = epoch, step.ids
            for i, box in zip(step.ids.tolist(), step.boxes, strict=True):
                if not self.replay:
                    self.table[epoch, i] = box, torch.empty(0)
            boxes = torch.stack([self.table[epoch, i][0] for i in step.ids.tolist()])
            yield replace(step, boxes=boxes)

    def hidden(self, drawn: Tensor) -> Tensor:
        epoch, ids = self.now
        if len(drawn) != len(ids):  # the layers are measured between the steps
            return drawn
        for i, mask in zip(ids.tolist(), drawn, strict=True):
            if not self.replay:
                self.table[epoch, i] = self.table[epoch, i][0], mask
        return torch.stack([self.table[epoch, i][1] for i in ids.tolist()])


def digests(folder: Path, source: Recorded) -> dict[str, str]:
    method: Any = build_method(CONFIG)
    draw = method.draw_hidden
    method.draw_hidden = lambda stream: source.hidden(draw(stream))
    streams = Streams(CONFIG.suite_seed, CONFIG.seed)
    session = Session(torch.device("cpu"), streams, Monitor(RunFolder(folder), 1e9))
    images = load.load(CONFIG, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "TOGETHER", 0)  # the table is asked step by step
        run = Pretraining(method, images, CONFIG, session, source.over).run()
    found: dict[str, str] = run.digests
    return found


@pytest.fixture(scope="module")
def table() -> Given:
    return {}


@pytest.fixture(scope="module")
def undisturbed(table: Given, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(tmp_path_factory.mktemp("undisturbed"), Recorded(table, replay=False))


def exchange_masks(table: Given) -> None:
    """Of two images whose number and epoch have the same sum."""
    (a, one), (b, two) = table[0, 6], table[1, 5]
    table[0, 6], table[1, 5] = (a, two), (b, one)


def exchange_crops(table: Given) -> None:
    (one, a), (two, b) = table[0, 6], table[1, 5]
    table[0, 6], table[1, 5] = (two, a), (one, b)


def permute_a_mask(table: Given) -> None:
    box, mask = table[1, 40]
    table[1, 40] = box, mask.flip(0)


def move_a_crop(table: Given) -> None:
    box, mask = table[1, 40]
    table[1, 40] = box + torch.tensor([0.01, 0, 0, 0, 0]), mask


@pytest.mark.parametrize(
    ("change", "stream"),
    [
        (exchange_masks, "mask"),
        (exchange_crops, "crop"),
        (permute_a_mask, "mask"),
        (move_a_crop, "crop"),
    ],
)
def test_the_digest_of_one_stream_changes(
    change: Callable[[Given], None],
    stream: str,
    undisturbed: dict[str, str],
    table: Given,
    tmp_path: Path,
) -> None:
    changed = dict(table)
    change(changed)
    found = digests(tmp_path, Recorded(changed, replay=True))
    assert [name for name in found if found[name] != undisturbed[name]] == [stream]


def test_replayed_draws_give_the_same_digests(
    undisturbed: dict[str, str], table: Given, tmp_path: Path
) -> None:
    assert set(undisturbed) == {"order", "crop", "mask"}
    assert digests(tmp_path, Recorded(dict(table), replay=True)) == undisturbed


def test_another_order_is_seen(undisturbed: dict[str, str], table: Given, tmp_path: Path) -> None:
    """Two images change places between the steps of an epoch, each keeping its box and mask."""

    class Swapped(Recorded):
        def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
            for step in super().epoch(epoch, first):
                places = step.places.clone()
                if epoch == 1:
                    places[[3, 4]] = places[[4, 3]]
                yield replace(step, places=places)

    found = digests(tmp_path, Swapped(dict(table), replay=True))
    assert [name for name in found if found[name] != undisturbed[name]] == ["order"]
