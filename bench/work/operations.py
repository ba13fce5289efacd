"""Floating-point operations of runs, counted on a small batch: a cost where no speed is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.api import Batch, ClassifierOptions
from bench.data import outline
from bench.data.load import load
from bench.plan.config import RunConfig
from bench.plan.study import PRETRAIN, Task
from bench.streams import Streams, preserved
from bench.train.method import build_method

IMAGES = 2

CARD, CARD_RATE = "an A100", 312e12
"""A named card and its makers' dense bf16 operations a second (NVIDIA A100 data sheet)."""

SHARES = (0.2, 0.5)
"""The shares of that rate that training is assumed to reach."""

RATES = {"core": (5e9, 3e10), "GPU": (4e12, 8e13)}
"""Operations a second that steps reach at least and at most, of models from 48 wide to ViT-S: a
guess around what docs/performance.md has measured."""


@dataclass(frozen=True)
class Hours:
    """Least and most GPU-hours of pre-training and of fine-tuning."""

    pretrain: tuple[float, float]
    finetune: tuple[float, float]


def gpu_hours(tasks: Sequence[Task], data_root: str) -> Hours:
    """GPU-hours of the tasks on :data:`CARD`."""
    pretrain, finetune = counted(tasks, data_root)
    return Hours(_span(pretrain), _span(finetune))


def seconds(tasks: Sequence[Task], data_root: str, unit: str) -> tuple[float, float]:
    """Least and most seconds of the tasks on one GPU or core (``unit``) of unknown speed."""
    slow, fast = RATES[unit]
    total = sum(counted(tasks, data_root))
    return total / fast, total / slow


def counted(tasks: Sequence[Task], data_root: str) -> tuple[float, float]:
    """Operations of pre-training and of fine-tuning; arms of equal models are counted once."""
    known: dict[Any, float] = {}
    images: dict[Any, tuple[int, int]] = {}
    totals = {True: 0.0, False: 0.0}  # pre-training, fine-tuning
    for task in tasks:
        config, trains = task.config, task.stage == PRETRAIN
        if trains and config.init:
            continue  # its weights are given
        if config.data not in images:
            images[config.data] = _images(config, data_root)
        key = (trains, config.method, config.hyper, config.plugins, config.model, config.tasks)
        if key not in known:
            labelled = images[config.data][1]
            known[key] = pretraining(config) if trains else finetuning(config, labelled)
        often = images[config.data][0] * config.pretrain.epochs if trains else 1
        totals[trains] += known[key] * often
    return totals[True], totals[False]


def _span(operations: float) -> tuple[float, float]:
    """Least and most hours of so many operations."""
    slow, fast = (operations / (CARD_RATE * share * 3600) for share in SHARES)
    return fast, slow


def _images(config: RunConfig, data_root: str) -> tuple[int, int]:
    """How many images pre-train, and how many of them have labels."""
    labels = None if data_root else outline.train_labels(config.data)
    if labels is not None:
        return len(labels), len(labels)
    images = load(config, data_root)
    return len(images.pretrain), len(images.train)


def pretraining(config: RunConfig) -> float:
    """Operations of an image's forward and backward pass, plug-ins included, half way through."""
    method: Any = build_method(config)
    ids = torch.arange(IMAGES)
    streams = Streams(config.suite_seed, config.seed)
    images = _noise(config)
    batch = Batch(
        images,
        method.draw_hidden(streams.samples("flops mask", 0, ids)),
        streams.samples("flops", 0, ids),
        progress=0.5,
        view=images,
        step=streams.samples("flops step", 0, ids[:1]),
    )

    def loss() -> torch.Tensor:
        output = method.train()(batch)
        total: torch.Tensor = output.loss
        return total if output.penalty is None else total + output.penalty

    return _counted(loss)


def finetuning(config: RunConfig, images: int) -> float:
    """Operations of all that is trained as a whole in a cell, by its recipes."""
    total = 0.0
    for _, recipe in config.tasks:
        if hasattr(recipe, "drop_path"):
            options = ClassifierOptions(classes=2, pool=recipe.pool)
            model: Any = build_method(config).classifier(options)
            each = _counted(partial(_sum, model, _noise(config)))
            often = getattr(recipe, "draws", 1) * recipe.epochs
            total += each * often * (config.data.labels or images)
    return total


def _sum(model: Any, images: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = model(images).sum()
    return total


def _noise(config: RunConfig) -> torch.Tensor:
    shape = config.model
    size = (IMAGES, shape.channels, shape.image_size, shape.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def _counted(loss: Callable[[], torch.Tensor]) -> float:
    """Operations an image."""
    with preserved(), FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops() / IMAGES
