"""How the originals initialise their parameters, each parameter from a generator of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Rule = Callable[[str, nn.Parameter, torch.Generator], None]


def initialise(module: nn.Module, rule: Rule, generator_for: Callable[[str], Any]) -> None:
    """Applies ``rule`` to every trainable parameter, each with the generator of its own name."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                rule(name, parameter, generator_for(name))


def init_mae(
    name: str, parameter: nn.Parameter, generator: torch.Generator, *, patch_pixels: int
) -> None:
    """MAE's rule: Xavier for every matrix (qkv and the patch embedding as one), N(0, 0.02) tokens.

    The patch embedding's bias keeps a PyTorch convolution's own initialisation.
    Source: models_mae.py:65-93.
    """
    if name.endswith(("cls_token", "mask_token")):
        nn.init.normal_(parameter, std=0.02, generator=generator)
    elif name.endswith("patch_embed.proj.bias"):
        init_bias_as_torch(parameter, patch_pixels, generator)
    elif parameter.ndim > 1:
        nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
    else:
        _init_vector(name, parameter)


def init_bias_as_torch(bias: nn.Parameter, inputs: int, generator: torch.Generator) -> None:
    """What PyTorch gives the bias of a linear layer or convolution with this many inputs."""
    nn.init.uniform_(bias, -(inputs**-0.5), inputs**-0.5, generator=generator)


def init_beit(
    name: str, parameter: nn.Parameter, generator: torch.Generator, *, std: float = 0.02
) -> None:
    """The rule of SimMIM and data2vec: normal of this std cut at one std, deeper outputs smaller.

    Source: simmim.py:66-67, vision_transformer.py (fix_init_weight); BEiT modeling_pretrain.py.
    """
    if name.endswith("relative_position_bias_table"):
        nn.init.zeros_(parameter)
    elif parameter.ndim > 1:
        nn.init.trunc_normal_(parameter, std=std, a=-std, b=std, generator=generator)
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            layer = int(name.split("blocks.")[1].split(".")[0])
            parameter.div_(math.sqrt(2.0 * (layer + 1)))
    else:
        _init_vector(name, parameter)


def _init_vector(name: str, parameter: nn.Parameter) -> None:
    """Norm weights to 1 and biases to 0; layer scale keeps the constant it was made with."""
    if name.endswith("bias"):
        nn.init.zeros_(parameter)
    elif "gamma" not in name:
        nn.init.ones_(parameter)
