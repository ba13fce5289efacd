"""A hand-made encoder that reads the label off the pixels, so that every score is known.

K classes. The first row of an image holds its ``cls`` code and the second its ``mean`` code, K
numbers each as bytes; the encoder multiplies a code by its weight [K, K]. A fresh encoder's weight
is 0: only a loaded one sees anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.api import ClassifierOptions
from bench.data.images import ArraySplit, ImageSet
from bench.data.load import labelled_subset
from bench.evaluate.encoder import Encoder as Evaluated
from bench.evaluate.finetune import FinetuneConfig
from bench.evaluate.knn import KnnConfig
from bench.evaluate.probe import ProbeConfig
from bench.plan.config import RunConfig
from bench.plan.sections import DataConfig
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train.loop import Session
from bench.train.monitor import Monitor
from tests.conftest import tiny_study

K = 4
LOADED = {"weight": torch.eye(K)}
"""Weights with which the features are the code itself."""

ROWS = {"cls": 0, "mean": 1}
"""Image row that holds the code of each pooling."""


class Encoder(nn.Module):
    """Features of an image are its code times a weight.

    Remembers how many images it has ``seen``, and of each call whether it was training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(K, K))
        self.seen, self.modes = 0, list[bool]()

    def features(self, images: Tensor, pool: str) -> Tensor:
        self.seen += len(images)
        self.modes.append(self.training)
        if pool == "tokens":
            return images[:, 0, : len(ROWS), :K] @ self.weight
        return images[:, 0, ROWS[pool], :K] @ self.weight


class Classifier(Encoder):
    def __init__(self, options: ClassifierOptions) -> None:
        super().__init__()
        self.options, self.head = options, nn.Linear(K, options.classes)

    def forward(self, images: Tensor, noise: Any = None) -> Tensor:
        logits: Tensor = self.head(self.features(images, self.options.pool))
        return logits

    def load_encoder(self, weights: Mapping[str, Tensor]) -> None:
        self.load_state_dict(dict(weights), strict=False)

    def no_weight_decay(self) -> set[str]:
        return set()

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        return {"stem": r"^weight", "blocks": r"^blocks\.(\d+)"}


class Method:
    """As much of a method as evaluation asks for; ``made`` are the classifiers it was asked for."""

    def __init__(self) -> None:
        self.vit, self.made = Encoder(), list[Classifier]()

    def encoder(self) -> Encoder:
        return self.vit

    def classifier(self, options: ClassifierOptions) -> Classifier:
        self.made.append(Classifier(options))
        return self.made[-1]


def one_hot(classes: Tensor) -> Tensor:
    """Codes [n, K] that name their class."""
    return nn.functional.one_hot(classes % K, K).float()


def split(labels: Tensor, cls: Tensor, mean: Tensor | None = None) -> ArraySplit:
    """Images with these labels [n] and codes [n, K] in [0, 1]; both poolings alike by default."""
    images = torch.zeros(len(labels), 1, 8, 8)
    images[:, 0, ROWS["cls"], :K] = cls
    images[:, 0, ROWS["mean"], :K] = cls if mean is None else mean
    return ArraySplit((images * 255).round().to(torch.uint8), labels)


def labels(count: int, seed: int = 0) -> Tensor:
    """As many of each class, in random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (torch.arange(count) % K)[order]


def plain(train: int = 200, test: int = 600) -> ImageSet:
    """Both poolings name the class, in training and test images."""
    parts = [split(y, one_hot(y)) for y in (labels(train), labels(test, 1))]
    return ImageSet(parts[0], parts[1], K)


def config(**sections: Mapping[str, Any]) -> RunConfig:
    """A configuration that learns such a set in a moment; ``sections`` change fields of it."""
    recipes: dict[str, Any] = {
        "finetune": FinetuneConfig(epochs=5, batch_size=20, blr=0, lr=0.1, head_init_std=0.02),
        "probe": ProbeConfig(
            optimizer="sgd", epochs=10, batch_size=20, blr=5.0, warmup_epochs=0, pool="mean"
        ),
        "knn": KnnConfig(k=5),
    }
    data = DataConfig(name="digits", mean=(0.0,), std=(1.0,), **sections.get("data", {}))
    tasks = tuple(
        (name, dataclasses.replace(recipe, **sections.get(name, {})))
        for name, recipe in recipes.items()
    )
    return dataclasses.replace(tiny_study("mae").cells[0].config, data=data, tasks=tasks)


def used(images: ImageSet, settings: RunConfig) -> Tensor:
    """Numbers of the training images whose labels evaluation may see."""
    return labelled_subset(images.train, settings.data.labels, streams(settings))


def streams(settings: RunConfig) -> Streams:
    return Streams(settings.suite_seed, settings.seed)


def encoder(
    folder: Path,
    images: ImageSet,
    settings: RunConfig | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Evaluated:
    """What tasks receive: an encoder with these weights, by default :data:`LOADED`."""
    settings = settings or config()
    monitor = Monitor(RunFolder(folder), checkpoint_every_s=1e9)
    session = Session(torch.device("cpu"), streams(settings), monitor)
    method: Any = Method()
    given = LOADED if weights is None else weights
    return Evaluated(method, given, images, settings, session)


def scores(
    folder: Path,
    images: ImageSet,
    settings: RunConfig | None = None,
    weights: dict[str, Tensor] | None = None,
) -> dict[str, float]:
    """Accuracies in per cent by the names of the tasks."""
    return run(encoder(folder, images, settings, weights))


def run(given: Evaluated) -> dict[str, float]:
    """Accuracies of all tasks of the encoder's configuration."""
    load = registry.TASKS.load
    return {name: load(name)(given, recipe).top1 for name, recipe in given.config.tasks}
