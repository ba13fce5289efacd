"""The methods of the table, small, bare or with MTO, and batches for them."""

from __future__ import annotations

from dataclasses import fields

import torch

from bench import registry
from bench.api import Batch, VisionShape, asks_only
from bench.streams import Streams
from mto.config import MTOConfig
from mto.plugin import with_mto

SHAPE = VisionShape(image_size=16, patch_size=2, channels=3, width=24, depth=3, heads=3)
SMALL = {
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "mask_patch_size": 4,
    "min_block": 4,
    "target_layers": 2,
    "projector_width": 32,
    "projector_out": 16,
}
OFF = MTOConfig.only(())
METHODS = [n for n in registry.METHODS.names() if not asks_only(registry.METHODS.load(n))]
"""Those with a layer to act on."""


def hyper(name):
    kind = registry.METHODS.config(name)
    known = {f.name for f in fields(kind)}
    return kind(**{key: value for key, value in SMALL.items() if key in known})


def made(name, config=None):
    method = registry.METHODS.load(name)(SHAPE, hyper(name))
    if config is not None:
        method = with_mto(method, config)
    streams = Streams(0, 1)
    method.reset_parameters(lambda parameter: streams.generator("init", parameter))
    return method


def batch_for(method, step=0, size=6):
    streams = Streams(0, 1)
    ids = torch.arange(size)
    generator = torch.Generator().manual_seed(step)
    images, view = torch.randn(2, size, 3, 16, 16, generator=generator)
    hidden = method.draw_hidden(streams.samples("mask", step, ids))
    noise = streams.samples("drop path", step, ids)
    return Batch(images, hidden, noise, progress=0.5, view=view)
