"""How BootMAE initialises its parameters (modeling_pretrain_bootmae.py:355-378)."""

from __future__ import annotations

import math

import torch
from torch import nn

from baselines.init import init_bias_as_torch


def init_bootmae(
    name: str, parameter: nn.Parameter, generator: torch.Generator, *, patch_pixels: int
) -> None:
    """Xavier for every matrix, query, key and value of a self-attention apart.

    Mask tokens have a standard deviation of 0.02 cut at one, the class token of 1e-6. The pixel
    head stays as PyTorch makes a transposed convolution: weight and bias alike are uniform in
    ± 1 / sqrt(P), where P is the number of a patch's pixel values.
    """
    if name.startswith("pixel_head"):
        init_bias_as_torch(parameter, patch_pixels, generator)
    elif name.endswith("mask_token"):
        nn.init.trunc_normal_(parameter, std=0.02, a=-0.02, b=0.02, generator=generator)
    elif name.endswith("cls_token"):
        nn.init.normal_(parameter, std=1e-6, generator=generator)
    elif name.endswith(".qkv.weight"):
        bound = math.sqrt(6 / (parameter.shape[0] // 3 + parameter.shape[1]))
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    elif parameter.ndim > 1:
        nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
    elif name.endswith("bias"):
        nn.init.zeros_(parameter)
    else:
        nn.init.ones_(parameter)
