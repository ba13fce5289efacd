"""What the parity tests share: small models with every parameter away from its neutral value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.api import Batch, VisionShape
from bench.streams import Streams

SHAPE = VisionShape(image_size=16, patch_size=4, width=24, depth=3, heads=2)
STREAMS = Streams(0, 0)

THEIR_SIZES: dict[str, Any] = {
    "hidden_size": SHAPE.width,
    "num_hidden_layers": SHAPE.depth,
    "num_attention_heads": SHAPE.heads,
    "intermediate_size": 4 * SHAPE.width,
    "layer_norm_eps": 1e-6,
    "image_size": SHAPE.image_size,
    "patch_size": SHAPE.patch_size,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attn_implementation": "eager",
}
"""The same sizes as settings of a Hugging Face model, dropout off and attention unfused."""

Get = Callable[[str], Tensor]
"""A parameter, or its gradient, by the other implementation's name."""


def scatter(module: nn.Module, seed: int = 3) -> None:
    """Gives every trainable parameter values at which a mistake would show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator)
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.data = centre + 0.15 * drawn


def make_batch(method: Any, size: int = 3) -> Batch:
    """Images of noise and the method's own masks."""
    shape = method.shape
    generator = torch.Generator().manual_seed(11)
    side = shape.image_size
    images = torch.randn(size, shape.channels, side, side, generator=generator)
    return Batch(images, method.draw_hidden(STREAMS.samples("mask", 0, torch.arange(size))))


def block_names(get: Get, theirs: str, attention: Mapping[str, str]) -> dict[str, Tensor]:
    """A Hugging Face block's values under our names; ``attention`` names its projections."""
    q, k, v, out = (attention[n] for n in "qkvo")
    found = {
        "attn.qkv.weight": torch.cat([get(f"{theirs}.{n}.weight") for n in (q, k, v)]),
        "attn.proj.weight": get(f"{theirs}.{out}.weight"),
        "attn.proj.bias": get(f"{theirs}.{out}.bias"),
        "mlp.fc1.weight": get(f"{theirs}.{attention['fc1']}.weight"),
        "mlp.fc1.bias": get(f"{theirs}.{attention['fc1']}.bias"),
        "mlp.fc2.weight": get(f"{theirs}.{attention['fc2']}.weight"),
        "mlp.fc2.bias": get(f"{theirs}.{attention['fc2']}.bias"),
    }
    for ours, name in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = get(f"{theirs}.{name}.{part}")
    return found


def values_of(module: nn.Module) -> Get:
    """Looks parameters up by name."""
    parameters = dict(module.named_parameters())
    return lambda name: parameters[name].detach()


def gradients_of(module: nn.Module) -> Get:
    """Looks gradients up by parameter name; zeros where there is none."""
    parameters = dict(module.named_parameters())

    def get(name: str) -> Tensor:
        parameter = parameters[name]
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    return get


def assert_same_gradients(ours: nn.Module, theirs: Mapping[str, Tensor]) -> None:
    """Relative error of every gradient below 1e-5, and none left uncompared."""
    trained = {n: p for n, p in ours.named_parameters() if p.requires_grad}
    assert set(trained) == set(theirs) & set(trained)
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        norm = theirs[name].norm()
        assert norm > 0, name
        error = (parameter.grad - theirs[name]).norm() / norm
        assert error < 1e-5, f"{name}: {error:.2e}"
