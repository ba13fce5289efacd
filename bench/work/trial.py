"""A pass of two images through a model, before anything is trained: its layers, what it keeps.

A small model passes with values: on the meta device, torch would import its compiler.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.api import Batch, ClassifierOptions, MaskEmbedding, TokenLayer
from bench.plan.config import RunConfig
from bench.streams import Streams, preserved
from bench.work.memory import Saved

IMAGES = 2

SMALL, FEW = 10_000_000, 1024
"""Parameters of a model, and patches of an image, that may pass with values."""


class _Counter:
    """A hook that counts the layers which carry mask tokens."""

    def __init__(self) -> None:
        self.layers = 0

    def embedding(self, embedding: MaskEmbedding) -> None:
        """Nothing."""

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> None:
        """Notes the layers of the longest stream."""
        self.layers = max(self.layers, layers)

    def attention(self, layer: TokenLayer) -> None:
        """Nothing."""


class Trial:
    """A pass of an arm's bare method, given as built on the meta device.

    ``layers`` carry mask tokens (or else the encoder's), ``kept`` bytes an image keeps in a step.
    """

    def __init__(self, bare: Any, config: RunConfig) -> None:
        large = sum(p.numel() for p in bare.parameters()) > SMALL or config.model.patches > FEW
        self.config, self.device = config, torch.device("meta" if large else "cpu")
        with preserved(), self.device:
            make = registry.METHODS.load(config.method)
            self.method: Any = bare if large else make(config.model, config.hyper)
        counter, images = _Counter(), self._images()
        stream = Streams(0, 0).samples("mask", 0, torch.arange(IMAGES))
        hidden = self.method.draw_hidden(stream).to(self.device)
        with _counted(self.method) as saved:
            self.method(Batch(images, hidden, view=images), counter)
        self.layers = counter.layers or config.model.depth
        self.kept = saved.bytes() / IMAGES

    def _images(self) -> Tensor:
        shape = self.config.model
        size = (IMAGES, shape.channels, shape.image_size, shape.image_size)
        return torch.zeros(size, device=self.device)

    def finetuning(self, options: ClassifierOptions) -> float:
        """Bytes that an image keeps in a step of a classifier."""
        with preserved(), self.device:
            model: Any = self.method.classifier(options)
        with _counted(model) as saved:
            model(self._images())
        return saved.bytes() / IMAGES


@contextlib.contextmanager
def _counted(module: Any) -> Iterator[Saved]:
    """Counts what a pass keeps, as far as it comes: not all of one can be told without values."""
    saved = Saved([*module.parameters(), *module.buffers()])
    with preserved(), contextlib.suppress(RuntimeError, NotImplementedError), saved:
        yield saved
