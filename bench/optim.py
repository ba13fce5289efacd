"""Optimizers and schedules, made of timm's parts."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from bench.config import FinetuneConfig, PretrainConfig, ProbeConfig, peak_lr, warmup


def pretrain_optimizer(
    module: nn.Module, recipe: PretrainConfig, spared: set[str]
) -> torch.optim.Optimizer:
    """AdamW with the originals' groups: vectors and biases are not decayed, nor ``spared``."""
    groups = param_groups_weight_decay(module, recipe.weight_decay, spared)
    return _adamw(groups, peak_lr(recipe), recipe.betas)


def finetune_optimizer(module: nn.Module, recipe: FinetuneConfig) -> torch.optim.Optimizer:
    """AdamW with layer-wise learning-rate decay; the head learns at the full rate."""
    groups = param_groups_layer_decay(
        module, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
    )
    return _adamw(groups, peak_lr(recipe), recipe.betas)


def probe_optimizer(module: nn.Module, recipe: ProbeConfig) -> torch.optim.Optimizer:
    """LARS with momentum 0.9 and trust coefficient 1e-3, as MAE's linear probe."""
    return create_optimizer_v2(
        module.parameters(),
        opt="lars",
        lr=peak_lr(recipe),
        weight_decay=recipe.weight_decay,
        momentum=0.9,
        trust_coeff=0.001,
    )


def _adamw(groups: list[Any], lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return create_optimizer_v2(
        groups, opt="adamw", lr=lr, weight_decay=0.0, betas=betas, fused=True
    )


def pretrain_scheduler(
    optimizer: torch.optim.Optimizer, recipe: PretrainConfig, steps: int
) -> Scheduler:
    """Per-step schedule of pre-training; ``steps`` an epoch. Call ``step_update(step)``."""
    warm = round(warmup(recipe) * steps)
    if recipe.schedule == "multistep":
        return MultiStepLRScheduler(
            optimizer,
            decay_t=[m * steps for m in recipe.milestones],
            decay_rate=0.1,
            warmup_t=warm,
            t_in_epochs=False,
        )
    return cosine(optimizer, recipe.epochs * steps, warm, recipe.min_lr)


def cosine(
    optimizer: torch.optim.Optimizer, total: int, warm: int, min_lr: float = 0.0
) -> Scheduler:
    """Linear warm-up from exactly 0 over ``warm`` steps, then a cosine to ``min_lr`` at the end.

    Source: MAE, util/lr_sched.py.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, total - warm),
        lr_min=min_lr,
        warmup_t=warm,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )
