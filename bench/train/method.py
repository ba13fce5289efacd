"""Methods from their configuration, and what is measured of their layers."""

from __future__ import annotations

from typing import Any

import torch

from bench import registry
from bench.api import Batch, Method
from bench.plan.config import RunConfig
from bench.streams import Streams


def build_method(config: RunConfig) -> Method:
    """The method with its plug-ins, every parameter initialised from its own stream."""
    method: Method = registry.METHODS.load(config.method)(config.model, config.hyper)
    for name, plugin_config in config.plugins:
        method = registry.PLUGINS.load(name)(method, plugin_config)
    streams = Streams(config.suite_seed, config.seed)
    method.reset_parameters(lambda name: streams.generator("init", name))
    return method


@torch.no_grad()
def measure_layers(method: Method, batch: Batch) -> dict[str, Any]:
    """Every measure of the registry on one batch, in evaluation mode."""
    module: Any = method
    training = module.training
    module.eval()
    found: dict[str, Any] = {}
    for name in registry.MEASURES.names():
        measure = registry.MEASURES.load(name)()
        method(batch, measure)
        found |= measure.summary()
    module.train(training)
    return found
