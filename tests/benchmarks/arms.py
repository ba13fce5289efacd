"""Our own arms: a method by its name in a table, initialised, and a batch with its masks."""

from __future__ import annotations

from typing import Any

import torch

from bench import registry
from bench.api import Batch, VisionShape
from bench.plan.resolve import wrapped
from bench.plan.typed import parse_arm
from bench.streams import Streams

STREAMS = Streams(0, 0)


def method_of(name: str, shape: VisionShape) -> Any:
    """``mae``, ``mae+mto``, ``mae+mto:all``, at the settings of the classes."""
    arm = parse_arm(name)
    method: Any = registry.METHODS.load(arm.method)(shape, registry.METHODS.config(arm.method)())
    for wrap in arm.plugins:
        config, _ = wrapped(wrap, {})
        method = registry.PLUGINS.load(wrap.name)(method, config)
    method.reset_parameters(lambda parameter: STREAMS.generator("init", parameter))
    return method


def batch_of(method: Any, count: int, step: int = 0, device: torch.device | str = "cpu") -> Batch:
    """Images of noise, the masks of a step, and the samples' own streams."""
    shape, ids = method.shape, torch.arange(count, device=device)
    size = (count, shape.channels, shape.image_size, shape.image_size)
    images = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    hidden = method.draw_hidden(STREAMS.samples("mask", step, ids))
    return Batch(images, hidden, STREAMS.samples("drop path", step, ids))
