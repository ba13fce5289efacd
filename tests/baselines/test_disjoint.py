"""Disjoint masks against what DMJD says of them, and steps that hold an image several times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import masking
from baselines.disjoint import disjoint
from bench.api import Batch
from bench.data import load
from bench.store.folder import RunFolder
from bench.store.record import Measured
from bench.streams import Streams
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.support.tiny_runs import tasks

STREAMS = Streams(0, 0)
PATCHES = 196


def masks_of(count: int, ratio: float, images: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Own masks [B, N], and those of a step [B, masks, N]."""
    ids = torch.arange(images)
    own = masking.random_patches(STREAMS.samples("mask", 0, ids), PATCHES, ratio)
    noise = STREAMS.samples("drop path", 0, torch.arange(images * count))
    found = disjoint(own.repeat_interleave(count, 0), noise, count)
    return own, found.unflatten(0, (images, count))


@pytest.mark.parametrize(("count", "ratio"), [(2, 0.75), (4, 0.75), (2, 0.6)])
def test_no_patch_is_shown_twice_and_the_first_mask_is_the_images_own(
    count: int, ratio: float
) -> None:
    own, found = masks_of(count, ratio)
    assert torch.equal(found[:, 0], own)
    assert (found.sum(2) == own.sum(1, keepdim=True)).all()
    assert (~found).sum(1).max() == 1
    if count * (1 - ratio) == 1:
        assert (~found).sum(1).min() == 1, "four masks of three quarters show every patch once"


def test_later_masks_are_as_random_as_the_first() -> None:
    """Each patch is shown as often, and in another place for other images."""
    _, found = masks_of(2, 0.75, images=2000)
    shown = (~found[:, 1]).double().mean(0)
    assert (shown - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert not torch.equal(found[0, 1], found[1, 1])


def test_masks_that_show_more_than_there_is_overlap_as_little_as_can_be() -> None:
    own, found = masks_of(3, 0.6)
    assert (found.sum(2) == own.sum(1, keepdim=True)).all()
    times = (~found).sum(1)
    assert (times.min(), times.max()) == (1, 2)


def trained(folder: Path, arm: str, epochs: int) -> tuple[Measured, list[Batch], list[Any]]:
    """What a pre-training measured, the batches that its method saw, and what it logged."""
    config = tasks(arm, epochs)[0].config
    method: Any = build_method(config)
    seen: list[Batch] = []

    def look(module: Any, given: Any) -> None:
        if given[0].noise is not None:
            seen.append(given[0])

    method.register_forward_pre_hook(look)
    monitor = Monitor(RunFolder(folder))
    session = Session(torch.device("cpu"), STREAMS, monitor)
    pretraining = Pretraining(method.train(), load.load(config, ""), config, session)
    pretraining.measure_layers = dict  # type: ignore[method-assign]
    return pretraining.run(), seen, RunFolder(folder).metrics()


def test_two_masks_count_two_epochs(tmp_path: Path) -> None:
    """As many steps, images and operations as the baseline; half as often each image is loaded."""
    base, plain, _ = trained(tmp_path / "mae", "mae", 4)
    ours, seen, logged = trained(tmp_path / "disjoint", "mae+disjoint", 4)
    assert ours.images_seen == base.images_seen
    assert ours.flops == pytest.approx(base.flops)
    assert [len(b.images) for b in seen] == [len(b.images) for b in plain]
    assert [b.progress for b in seen] == [b.progress for b in plain]
    steps = seen[1:]  # the first pass counts operations
    for batch in steps:
        assert torch.equal(batch.images[::2], batch.images[1::2])
        assert not (~batch.hidden[::2] & ~batch.hidden[1::2]).any()
        assert batch.noise is not None
        draws = batch.noise.uniform(4)
        assert not torch.equal(draws[::2], draws[1::2])
    pictures = (max(x.tolist(), x.flip(2).tolist()) for batch in steps for x in batch.images)
    times = Counter(str(picture) for picture in pictures)
    assert set(times.values()) == {4}, "twice in each of two passes"
    assert [line["epoch"] for line in logged if line["step"]] == [2, 4]
    assert all(ours.digests[name] != base.digests[name] for name in ("order", "mask"))
