"""ConMIM: "Masked Image Modeling with Denoising Contrast", arXiv 2205.09616.

The student sees one view of an image with mask tokens, the teacher, its moving average, another
view of it whole. The student's feature of a hidden patch must be recognised among all of the
teacher's features of the same image. B images, N patches, M hidden, T = 1 + N tokens, D width,
E width of a projected feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import masking
from baselines.conmim.config import ConMIMConfig
from baselines.conmim.official import check_network, from_conmim
from baselines.conmim.projector import projector
from baselines.entering import entering
from baselines.init import init_beit, initialise
from baselines.places import split, take
from baselines.vit import Style, VisionTransformer, ViTClassifier
from bench.api import (
    Batch,
    ClassifierOptions,
    GeneratorFor,
    MethodOutput,
    SampleStream,
    TokenHook,
    VisionShape,
)
from bench.errors import RunError


def style_of(config: ConMIMConfig, drop_path: float) -> Style:
    """The encoder's style for this configuration."""
    return Style(
        positions="relative" if config.rel_pos_bias else "sincos",
        split_bias=True,
        layer_scale=config.layer_scale,
        drop_path=drop_path,
    )


class Tower(nn.Module):
    """An encoder and its projector; student and teacher are one each."""

    def __init__(self, shape: VisionShape, config: ConMIMConfig) -> None:
        super().__init__()
        self.vit = VisionTransformer(shape, style_of(config, 0.0))
        sizes = (config.projector_width, config.projector_out, config.norm_images)
        self.projector = projector(shape.width, *sizes)

    def project(self, tokens: Tensor) -> Tensor:
        """The last block's tokens [B, T, D] to unit features of the patches, [B, N, E].

        The class token is projected too: it counts in the batch norms.
        """
        projected = self.projector(self.vit.norm(tokens))[:, 1:]
        return F.normalize(projected.float(), dim=-1)


class ConMIM(nn.Module):
    """Contrastive masked image modelling; mask tokens live in every layer of the student."""

    Config = ConMIMConfig

    def __init__(self, shape: VisionShape, config: ConMIMConfig) -> None:
        super().__init__()
        self.shape, self.config = shape, config
        self.student = Tower(shape, config)
        self.student.vit.norm.bias.requires_grad_(False)  # the projector's norm takes it away
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.teacher = Tower(shape, config).requires_grad_(False)

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Cross entropy of each hidden patch's place among all places of its image.

        Source: engine_for_pretraining.py:54-77.

        Raises:
            RunError: if the batch has no second view.
        """
        if batch.view is None:
            raise RunError("ConMIM's teacher needs a second view of the batch; it has none.")
        _, hidden = split(batch.hidden, batch.most or self.hidden_count)
        keys = self.target(batch.view)
        queries = self.predict(batch, hook)
        logits = queries @ keys.mT / self.config.temperature
        loss = F.cross_entropy(logits.flatten(0, 1), hidden.flatten())
        return MethodOutput(loss, terms={"mim": loss.detach()}, prediction=queries)

    def predict(self, batch: Batch, hook: TokenHook | None = None) -> Tensor:
        """The student's features [B, M, E] at the hidden places of the masked images."""
        vit = self.student.vit
        tokens = vit.embed(batch.images)
        masks = entering(hook, tokens, self.mask_token, batch.hidden)
        tokens = torch.where(batch.hidden[:, :, None], masks.to(tokens.dtype), tokens)
        x = vit.prepend_class(vit.add_positions(tokens))
        watch = None if hook is None else (hook, F.pad(batch.hidden, (1, 0)))
        features = self.student.project(vit.run(x, batch.noise, watch)[-1])
        return take(features, split(batch.hidden, batch.most or self.hidden_count)[1])

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """The teacher's features [B, N, E] of whole images."""
        return self.teacher.project(self.teacher.vit.tokens(images))

    @property
    def hidden_count(self) -> int:
        """M, the number of hidden patches of every image."""
        return masking.count_in_cells(self.shape.grid, self._cell, self.config.mask_ratio)

    @property
    def _cell(self) -> int:
        return max(1, self.config.mask_patch_size // self.shape.patch_size)

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises the student as BEiT does; the teacher starts as its copy."""
        initialise(self, partial(init_beit, std=self.config.init_std), generator_for)
        with torch.no_grad():
            for slow, fast in zip(*self._pairs(), strict=True):
                slow.copy_(fast)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        student = dict(self.student.named_parameters())
        teacher = dict(self.teacher.named_parameters())
        return list(teacher.values()), [student[name] for name in teacher]

    def momentum(self, step: int, total_steps: int) -> float:
        """The teacher's momentum at a step: ``momentum`` at the first, 1 after the last."""
        config = self.config
        rest = 1 - config.momentum
        if config.momentum_span:
            rest = min(1.0, 1 / (config.momentum_span * total_steps))
        return 1 - rest * 0.5 * (1 + math.cos(math.pi * step / total_steps))

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Moves the teacher's parameters towards the student's (engine_for_pretraining.py:92)."""
        slow, fast = self._pairs()
        torch._foreach_lerp_(slow, fast, 1 - self.momentum(step, total_steps))

    def official_entries(self, file: str) -> tuple[str, ...]:
        """Where an original file keeps its network: as usual, if it is the one evaluated.

        Raises:
            UsageError: if by its name the file holds the other network.
        """
        check_network(file, self.config.evaluate)
        return ()

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an original checkpoint under the names of this method."""
        return from_conmim(official, self.state_dict())

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Random square cells, bool [B, N]."""
        return masking.random_cells(stream, self.shape.grid, self._cell, self.config.mask_ratio)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The student's mask token."""
        return {"mask_token": self.mask_token}

    def no_weight_decay(self) -> set[str]:
        """The class token alone: mask token and bias table are decayed (optim_factory.py)."""
        return {"student.vit.cls_token"}

    def encoder(self) -> nn.Module:
        """The encoder that is evaluated, the teacher's unless so configured, ``Beit`` names."""
        tower = self.student if self.config.evaluate == "student" else self.teacher
        return tower.vit

    def classifier(self, options: ClassifierOptions) -> ViTClassifier:
        """A fresh classifier of this architecture, with one bias table a layer.

        The shared table is copied into each (run_class_finetuning.py:330-337).
        """
        style = style_of(self.config, options.drop_path)
        if style.positions == "relative":
            style = replace(style, positions="relative_each")
        return ViTClassifier(self.shape, style, options)
