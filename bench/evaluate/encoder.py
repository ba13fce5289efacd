"""A pre-trained encoder as its tasks see it: features, classifiers, labelled images, streams.

B images, D width, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.api import ClassifierOptions, Method
from bench.data.batch import Feed, FeedConfig
from bench.data.feed import evaluation_batches, make_feed
from bench.data.images import ImageSet, Split
from bench.data.load import labelled_subset
from bench.plan.config import RunConfig
from bench.plan.sections import AugmentConfig
from bench.streams import Streams
from bench.train.loop import Session, autocast

EVAL_BATCH = 512
"""Images at once when nothing is trained."""


@dataclass
class Encoder:
    """Built once a cell. What tasks share is computed once: frozen features.

    ``shorten`` cuts the feeds that a task trains on, for a measurement of speed.
    """

    method: Method
    weights: dict[str, Tensor]
    images: ImageSet
    config: RunConfig
    session: Session
    shorten: Callable[[Feed], Feed] = lambda feed: feed
    _features: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """K."""
        return self.images.classes

    @property
    def streams(self) -> Streams:
        """Random numbers of the run, by name."""
        return self.session.streams

    @property
    def device(self) -> torch.device:
        """Where the cell is computed."""
        return self.session.device

    def labelled(self, draw: int = 0) -> Tensor:
        """Indices of the training images whose labels may be used; each ``draw`` is another."""
        return labelled_subset(self.images.train, self.config.data.labels, self.streams, draw)

    def everything(self) -> Tensor:
        """Indices of all training images."""
        return torch.arange(len(self.images.train))

    def feed(self, purpose: str, subset: Tensor, batch_size: int, augment: AugmentConfig) -> Feed:
        """Batches of training images; ``purpose`` names what is drawn for them."""
        settings = self._feed_config(purpose, min(batch_size, len(subset)), augment)
        return self.shorten(make_feed(self.images.train, subset, settings))

    def _feed_config(self, purpose: str, batch_size: int, augment: AugmentConfig) -> FeedConfig:
        return self.session.feed_config(self.config, purpose, batch_size, augment)

    def classifier(self, drop_path: float, pool: str) -> Any:
        """A fresh classifier that starts from this encoder; its head is the task's to draw."""
        options = ClassifierOptions(classes=self.images.classes, drop_path=drop_path, pool=pool)
        model: Any = self.method.classifier(options)
        model.load_encoder(self.weights)
        return model

    @torch.no_grad()
    def correct(self, model: Any, precision: str) -> Tensor:
        """Which test images [N] a classifier names rightly, the same on every process."""
        split, world = self.images.test, self.session.world
        mine = torch.arange(len(split))[world.span(len(split))]
        feed = self._feed_config("test", EVAL_BATCH, AugmentConfig())
        found = [torch.zeros(0, dtype=torch.uint8, device=self.device)]
        for images, labels in evaluation_batches(split, mine, feed):
            with autocast(self.device, precision):
                logits = model(images)
            found.append((logits.argmax(1) == labels).byte())
        return world.gather(torch.cat(found)).bool()

    @cached_property
    def frozen(self) -> Any:
        """The encoder itself, in evaluation mode, without gradients."""
        encoder: Any = self.method.encoder()
        encoder.load_state_dict(self.weights)
        return encoder.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def embed(self, images: Tensor, pool: str, precision: str = "") -> Tensor:
        """Frozen features [B, D] in float32, a limited number of images at a time.

        ``precision`` of the encoder's products is by default the one it was pre-trained with.
        """
        with autocast(self.device, precision or self.config.pretrain.precision):
            parts = images.split(self.session.micro_batch or EVAL_BATCH)
            return torch.cat([self.frozen.features(part, pool).float() for part in parts])

    def features(
        self, pool: str, split: Split, subset: Tensor | None = None, precision: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Frozen features [n, D] and labels [n] of some images of a split, by default of all.

        Taken once for all tasks that ask for the same.
        """
        precision = precision or self.config.pretrain.precision
        subset = torch.arange(len(split)) if subset is None else subset
        images = hashlib.sha256(subset.numpy().tobytes()).digest()
        key = (pool, split is self.images.train, images, precision)
        if key not in self._features:
            self._features[key] = self._compute(pool, split, subset, precision)
        return self._features[key]

    def _compute(
        self, pool: str, split: Split, subset: Tensor, precision: str
    ) -> tuple[Tensor, Tensor]:
        feed = self._feed_config("features", EVAL_BATCH, AugmentConfig())
        found, labels = [], []
        world = self.session.world
        for images, truth in evaluation_batches(split, subset[world.span(len(subset))], feed):
            found.append(self.embed(images, pool, precision))
            labels.append(truth)
        return world.gather(torch.cat(found)), world.gather(torch.cat(labels))

    def logger(self, stage: str) -> Callable[[int, int, float], None]:
        """What a training calls after an epoch."""

        def log(epoch: int, step: int, loss: float) -> None:
            self.session.monitor.log(stage=stage, epoch=epoch, step=step, loss=loss)

        return log
