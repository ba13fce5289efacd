"""Optimizers and schedules, made of timm's parts."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import (
    param_groups_weight_decay,
)
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from bench.plan.sections import PretrainConfig, peak_lr, warmup
from bench.train.adamw import AdamW


def pretrain_optimizer(
    module: nn.Module, recipe: PretrainConfig, spared: set[str]
) -> torch.optim.Optimizer:
    """AdamW with the originals' groups: vectors and biases are not decayed, nor ``spared``."""
    groups = param_groups_weight_decay(module, recipe.weight_decay, no_weight_decay_list=spared)
    return adamw(groups, peak_lr(recipe), recipe.betas)


def adamw(groups: list[Any], lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """AdamW on parameter groups that say their own weight decay."""
    return AdamW(groups, lr=lr, weight_decay=0.0, betas=betas, fused=True)


def pretrain_scheduler(
    optimizer: torch.optim.Optimizer, recipe: PretrainConfig, steps: float
) -> Scheduler:
    """Per-step schedule of pre-training; ``steps`` an epoch. Call ``step_update(step)``."""
    total, warm = round(recipe.epochs * steps), round(warmup(recipe) * steps)
    if recipe.schedule == "multistep":
        return multistep(optimizer, [round(share * total) for share in recipe.milestones], warm)
    return cosine(optimizer, total, warm, recipe.min_lr)


def multistep(optimizer: torch.optim.Optimizer, milestones: list[int], warm: int) -> Scheduler:
    """Linear warm-up from 0 over ``warm`` steps; from each milestone step on a tenth of the rate.

    Milestones count from the start of the run, warm-up included (SimMIM lr_scheduler.py:112-153);
    timm's scheduler moves one step early, hence the 1.
    """
    return MultiStepLRScheduler(
        optimizer,
        decay_t=[m + 1 for m in milestones],
        decay_rate=0.1,
        warmup_t=warm,
        warmup_prefix=False,
        t_in_epochs=False,
    )


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
