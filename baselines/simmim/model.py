"""SimMIM: "A Simple Framework for Masked Image Modeling", arXiv 2111.09886, with a ViT encoder.

The encoder sees all patches, the hidden ones replaced by a mask token; one linear layer predicts
their raw pixels. B images, N patches, C channels, p pixels a patch side, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import masking
from baselines.carry import carry
from baselines.entering import entering
from baselines.init import init_beit, init_bias_as_torch, initialise
from baselines.linear import linear
from baselines.patches import patchify, unpatchify
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.official import from_simmim
from baselines.vit import (
    Style,
    VisionTransformer,
    ViTClassifier,
)
from bench.api import (
    Batch,
    ClassifierOptions,
    GeneratorFor,
    MethodOutput,
    SampleStream,
    TokenHook,
    VisionShape,
)


def style_of(config: SimMIMConfig, drop_path: float) -> Style:
    """The encoder's style for this configuration."""
    return Style(
        positions="relative" if config.rel_pos_bias else "sincos",
        split_bias=True,
        layer_scale=config.layer_scale,
        final_norm=config.final_norm,
        drop_path=drop_path,
    )


class SimMIM(nn.Module):
    """SimMIM; mask tokens live in every encoder layer."""

    Config = SimMIMConfig

    def __init__(self, shape: VisionShape, config: SimMIMConfig) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.vit = VisionTransformer(shape, style_of(config, config.drop_path))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        pixels = shape.channels * shape.patch_size**2
        self.decoder = nn.Sequential(nn.Conv2d(shape.width, pixels, 1))

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Mean absolute error over the hidden pixels (simmim.py:113-121).

        The official normaliser adds 1e-5 to the number of hidden pixels before dividing by the
        channels.
        """
        prediction, predicted = self.predict(batch, hook)
        target = patchify(batch.images, self.shape.patch_size)[predicted]
        error = (prediction.float() - target).abs().sum()
        pixels = len(target) * self.shape.patch_size**2
        loss = error / (pixels + 1e-5) / self.shape.channels
        return MethodOutput(loss, terms={"mim": loss.detach()}, prediction=prediction)

    def predict(self, batch: Batch, hook: TokenHook | None = None) -> tuple[Tensor, Tensor]:
        """Pixels [M, C*p*p] of hidden patches, as (channel, row, column); which, [B, N]."""
        tokens = self.vit.embed(batch.images)
        masks = entering(hook, tokens, self.mask_token, batch.hidden)
        tokens = torch.where(batch.hidden[:, :, None], masks.to(tokens.dtype), tokens)
        x = self.vit.prepend_class(self.vit.add_positions(tokens))
        carried = carry(hook, batch.hidden, self.shape.depth)
        watch = None if hook is None else (hook, F.pad(batch.hidden, (1, 0)))
        x = self.vit.run(x, batch.noise, watch, carried)[-1]
        weight, bias = self.decoder.parameters()
        if carried is not None:
            x = self.vit.norm(carried.masked(x))
            return linear(x, weight.flatten(1), bias), carried.patches
        pixels = linear(self.vit.norm(x)[:, 1:], weight.flatten(1), bias)
        return pixels[batch.hidden], batch.hidden

    def reconstruct(self, batch: Batch, prediction: Tensor) -> Tensor:
        """A forward pass's prediction as pixels [B, C, S, S]; visible patches are the image's."""
        patches = patchify(batch.images, self.shape.patch_size)
        patches[batch.hidden] = prediction.to(patches.dtype)
        return unpatchify(patches, self.shape.patch_size, self.shape.channels)

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises as simmim.py:66-67; the prediction layer as any PyTorch convolution."""
        initialise(
            self,
            partial(_init_simmim, width=self.shape.width, std=self.config.init_std),
            generator_for,
        )

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released SimMIM checkpoint under the names of this method."""
        return from_simmim(official, self.state_dict())

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Random square cells, bool [B, N]."""
        cell = max(1, self.config.mask_patch_size // self.shape.patch_size)
        return masking.random_cells(stream, self.shape.grid, cell, self.config.mask_ratio)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The encoder's mask token."""
        return {"mask_token": self.mask_token}

    def no_weight_decay(self) -> set[str]:
        """The class token alone: mask token and bias table are decayed (simmim.py:133-142)."""
        return {"vit.cls_token"}

    def after_step(self, step: int, total_steps: int) -> None:
        """SimMIM has no teacher."""

    def encoder(self) -> nn.Module:
        """The encoder, timm's ``Beit`` names."""
        return self.vit

    def classifier(self, options: ClassifierOptions) -> ViTClassifier:
        """A fresh classifier of this architecture, with one bias table a layer.

        Source: vit_base fine-tune yaml, USE_RPB; the shared table is copied into each layer.
        """
        style = style_of(self.config, options.drop_path)
        if style.positions == "relative":
            style = replace(style, positions="relative_each")
        return ViTClassifier(self.shape, style, options)


def _init_simmim(
    name: str, parameter: nn.Parameter, generator: torch.Generator, *, width: int, std: float
) -> None:
    if not name.startswith("decoder.0"):
        init_beit(name, parameter, generator, std=std)
    elif name.endswith("weight"):
        nn.init.kaiming_uniform_(parameter, a=5**0.5, generator=generator)
    else:
        init_bias_as_torch(parameter, width, generator)
