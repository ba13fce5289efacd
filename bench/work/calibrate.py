"""Measures an arm's speed from a few steps of pre-training and fine-tuning."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bench import registry
from bench.data import load
from bench.data.batch import Feed, Step
from bench.evaluate.encoder import Encoder
from bench.evaluate.task import Score
from bench.machine.device import settle
from bench.plan.config import Resources, RunConfig
from bench.store.folder import RunFolder
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from bench.work.estimate import Speed
from bench.work.session import session_of

STEPS = 6
"""Steps of each of the two measured epochs; the first one warms up."""


@dataclass
class ShortFeed:
    """The first few steps of another feed's epochs."""

    feed: Feed
    steps: int

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """The steps of a shortened epoch."""
        return islice(self.feed.epoch(epoch, first), self.steps - first)


def calibrate(config: RunConfig, resources: Resources, processes: int = 1) -> Speed:
    """Runs a few steps of both stages in a temporary folder and measures them.

    One of several ``processes`` is measured, which holds its share of a batch at once; together
    they are taken to lose no time to one another.
    """
    if processes > 1:
        share = -(-config.pretrain.batch_size // processes)
        resources = replace(resources, micro_batch=min(share, resources.micro_batch or share))
    settle(resources)
    with tempfile.TemporaryDirectory() as folder:
        monitor = Monitor(RunFolder(Path(folder)), checkpoint_every_s=1e9)
        session = session_of(config, resources, monitor)
        images = load.load(config, resources.data_root).kept()
        short = _with_epochs(config, 2)
        module: Any = build_method(short)
        module.to(session.device).train()
        pretraining = Pretraining(module, images, short, session, _shorten)
        rate = (pretraining.run().images_per_s or 0.0) * processes
        weights = module.encoder().state_dict()
        encoder = Encoder(module, weights, images, short, session, _shorten)
        seconds = _evaluation_s(encoder, config) / processes
        kept = sum(t.numel() * t.element_size() for t in module.state_dict().values())
        kept += sum(t.numel() * t.element_size() for t in weights.values())
        size = config.pretrain.batch_size // config.masks
        count = len(images.pretrain)
        return Speed(rate, count // size * size or count, seconds, kept / 2**20)


def _evaluation_s(encoder: Encoder, config: RunConfig) -> float:
    """Seconds of the first task that trains, from two short epochs of it; the longest by far."""
    for name, recipe in config.tasks:
        if hasattr(recipe, "epochs"):
            score: Score = registry.TASKS.load(name)(encoder, encoder.config.task(name))
            steps = -(-(config.data.labels or len(encoder.images.train)) // recipe.batch_size)
            return (score.seconds or 0.0) * recipe.epochs * steps / (2 * min(STEPS, steps))
    return 0.0


def _shorten(feed: Feed) -> Feed:
    return ShortFeed(feed, min(STEPS, feed.steps))


def _with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    short = {"epochs": epochs, "warmup_epochs": 0.0}
    tasks = tuple(
        (name, replace(recipe, **short) if hasattr(recipe, "epochs") else recipe)
        for name, recipe in config.tasks
    )
    recipe = replace(config.pretrain, epochs=epochs * config.masks)
    return replace(config, pretrain=recipe, tasks=tasks)
