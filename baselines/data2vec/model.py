"""data2vec for images: arXiv 2202.03555, as published in facebookresearch/data2vec_vision.

A student that sees mask tokens predicts, at the hidden places, the averaged top-layer features
that an exponential moving average of itself computes from the whole image. B images, N patches,
M hidden patches of the batch, T = 1 + N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import masking
from baselines.carry import carry
from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.official import from_data2vec
from baselines.entering import entering
from baselines.init import init_beit, initialise
from baselines.linear import Linear
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
from bench.errors import UsageError


def style_of(config: Data2VecConfig, drop_path: float, attn_drop: float) -> Style:
    """The encoder's style for this configuration."""
    return Style(
        positions="relative" if config.rel_pos_bias else "sincos",
        split_bias=True,
        layer_scale=config.layer_scale,
        drop_path=drop_path,
        attn_drop=attn_drop,
    )


TARGET_EPS = 1e-5
"""Epsilon of the targets' norms: functional layer norms with PyTorch's default in the original."""


class Data2Vec(nn.Module):
    """data2vec; mask tokens live in every layer of the student."""

    Config = Data2VecConfig

    def __init__(self, shape: VisionShape, config: Data2VecConfig) -> None:
        super().__init__()
        if config.target_layers > shape.depth:
            raise UsageError(
                f"data2vec.target_layers={config.target_layers}, but model.depth={shape.depth}. "
                f"Set at most data2vec.target_layers={shape.depth}."
            )
        self.shape, self.config = shape, config
        self.vit = VisionTransformer(shape, style_of(config, config.drop_path, config.attn_drop))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.lm_head = Linear(shape.width, shape.width)
        teacher = VisionTransformer(shape, style_of(config, 0.0, 0.0))
        teacher.norm = nn.Identity()  # targets are block outputs: the teacher's norm is never read
        self.teacher = teacher.requires_grad_(False)

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Smooth L1 between the student's prediction and the teacher's target, hidden places only.

        Source: engine_for_cyclical.py:67-140.
        """
        prediction, predicted = self.predict(batch, hook)
        target = self.target(batch.images)[predicted]
        loss = F.smooth_l1_loss(prediction.float(), target, beta=self.config.beta)
        return MethodOutput(loss, terms={"mim": loss.detach()}, prediction=prediction)

    def predict(self, batch: Batch, hook: TokenHook | None = None) -> tuple[Tensor, Tensor]:
        """The student's prediction [M, D] at hidden places; which, [B, N]."""
        tokens = self.vit.embed(batch.images)
        masks = entering(hook, tokens, self.mask_token, batch.hidden)
        tokens = torch.where(batch.hidden[:, :, None], masks.to(tokens.dtype), tokens)
        x = self.vit.prepend_class(self.vit.add_positions(tokens))
        carried = carry(hook, batch.hidden, self.shape.depth)
        watch = None if hook is None else (hook, F.pad(batch.hidden, (1, 0)))
        x = self.vit.run(x, batch.noise, watch, carried)[-1]
        if carried is not None:
            return self.lm_head(self.vit.norm(carried.masked(x))), carried.patches
        return self.lm_head(self.vit.norm(x)[:, 1:][batch.hidden]), batch.hidden

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """Averaged top-block outputs of the teacher on the whole image, [B, N, D] in float32.

        Each block's output is normalised without affine parameters, averaged, normalised again.
        The teacher computes in full precision whatever the student does.
        Source: engine_for_cyclical.py:67-99.
        """
        teacher = self.teacher
        with torch.autocast(images.device.type, enabled=False):
            x = teacher.prepend_class(teacher.add_positions(teacher.embed(images)))
            top = teacher.run(x)[-self.config.target_layers :]
        width = (self.shape.width,)
        normed = [F.layer_norm(block[:, 1:].float(), width, eps=TARGET_EPS) for block in top]
        return F.layer_norm(torch.stack(normed).mean(0), width, eps=TARGET_EPS)

    def train(self, mode: bool = True) -> Data2Vec:
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises the student as BEiT does; the teacher starts as its copy."""
        initialise(self, partial(init_beit, std=self.config.init_std), generator_for)
        with torch.no_grad():
            for slow, fast in zip(*self._pairs, strict=True):
                slow.copy_(fast)

    @cached_property
    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        student = dict(self.vit.named_parameters())
        names = [name for name, _ in self.teacher.named_parameters()]
        return [p for _, p in self.teacher.named_parameters()], [student[n] for n in names]

    def decay(self, step: int, total_steps: int) -> float:
        """The teacher's decay at a step: constant, or annealed to its last value."""
        config = self.config
        anneal = config.ema_anneal_share * total_steps
        done = 1.0 if step >= anneal else step / anneal
        if config.ema_span:
            first = config.ema_span_start or config.ema_span
            span = first * (config.ema_span / first) ** done
            return max(0.0, 1 - 1 / (span * total_steps))
        start, end = config.ema_decay_start, config.ema_decay
        return end if step >= anneal else start + (end - start) * done

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Moves the teacher's parameters towards the student's; buffers are never averaged."""
        slow, fast = self._pairs
        torch._foreach_lerp_(slow, fast, 1 - self.decay(step, total_steps))

    def official_entries(self, file: str) -> tuple[str, ...]:
        """Where a released file keeps the student, which is evaluated; the teacher lies beside."""
        return ("model", "module", "state_dict")

    def import_official(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released data2vec checkpoint under the names of this method."""
        return from_data2vec(official, self.state_dict())

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Random rectangles, bool [B, N]; counts are ragged."""
        shape, config = self.shape, self.config
        most = round(shape.patches * config.mask_ratio)
        return masking.blocks(stream, shape.grid, most, config.min_block, config.min_aspect)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The student's mask token."""
        return {"mask_token": self.mask_token}

    def no_weight_decay(self) -> set[str]:
        """The class token alone: mask token and bias table are decayed (optim_factory.py)."""
        return {"vit.cls_token"}

    def encoder(self) -> nn.Module:
        """The student's encoder, as official fine-tuning takes it, under timm's ``Beit`` names."""
        return self.vit

    def classifier(self, options: ClassifierOptions) -> ViTClassifier:
        """A fresh classifier of this architecture."""
        return ViTClassifier(self.shape, style_of(self.config, options.drop_path, 0.0), options)
