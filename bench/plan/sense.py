"""What settings must fulfil together: geometry, rates, warm-up. Pure; no torch.

Each alone is held to the rule beside its field (:mod:`bench.api.rules`); what only a built model or
the images can tell is asked of them (:mod:`bench.work.vet`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.errors import UsageError
from bench.plan.config import RunConfig
from bench.plan.sections import peak_lr, warmup

MOST_PATCHES = 1 << 16
"""Patches of an image; attention weighs every one against every other."""


def check(config: RunConfig) -> None:
    """Refuses a configuration whose settings cannot go together.

    Raises:
        UsageError: for the first that is found.
    """
    for found in complaints(config):
        raise UsageError(f"{config.arm}, {config.pretrain.epochs} epochs: {found}")
    for _, recipe in config.tasks:
        if hasattr(recipe, "check_model"):
            recipe.check_model(config.model)


def complaints(config: RunConfig) -> Iterator[str]:
    """Whatever is wrong, in words."""
    yield from _geometry(config)
    yield from _rates(config)
    yield from _lengths(config)


def _geometry(config: RunConfig) -> Iterator[str]:
    model, data = config.model, config.data
    if model.image_size % model.patch_size:
        yield (
            f"model.patch_size={model.patch_size} does not divide "
            f"model.image_size={model.image_size}."
        )
    elif model.patches > MOST_PATCHES:
        yield (
            f"model.patch_size={model.patch_size} cuts model.image_size={model.image_size} into "
            f"{model.patches} patches, more than {MOST_PATCHES}."
        )
    if model.width % model.heads:
        yield f"model.heads={model.heads} do not divide model.width={model.width}."
    if int(model.width * model.mlp_ratio) < 1:
        yield f"model.mlp_ratio={model.mlp_ratio:g} leaves an MLP without a hidden unit."
    for name in ("mean", "std"):
        count = len(getattr(data, name))
        if count != model.channels:
            yield (
                f"data.{name} has {count} values, the model {model.channels} channels. "
                f"Set model.channels={count}, or as many values."
            )


def _rates(config: RunConfig) -> Iterator[str]:
    for name, recipe in _stages(config):
        peak = peak_lr(recipe)
        if not peak > 0:
            rates = [f"{name}.{rate}" for rate in ("lr", "blr") if hasattr(recipe, rate)]
            are = f"{' and '.join(rates)} {'are' if len(rates) > 1 else 'is'}"
            yield f"{are} 0, so nothing would be learnt. Set one."
        elif getattr(recipe, "min_lr", 0.0) > peak:
            yield f"{name}.min_lr={recipe.min_lr:g} is above the peak rate {peak:g}."
        weight_decay = getattr(recipe, "weight_decay", 0.0)
        if getattr(recipe, "optimizer", "") == "sgd" and weight_decay:
            yield (
                f"{name}.weight_decay={weight_decay:g} would be ignored: it is read with "
                f"{name}.optimizer=lars. Set that, or {name}.weight_decay=0."
            )
    if config.pretrain.schedule == "multistep" and not config.pretrain.milestones:
        yield "pretrain.schedule=multistep needs pretrain.milestones, as [0.875]."
    if config.pretrain.schedule == "multistep" and config.pretrain.min_lr:
        yield (
            f"pretrain.min_lr={config.pretrain.min_lr:g} would be ignored: it is read with "
            "pretrain.schedule=cosine. Set that, or pretrain.min_lr=0."
        )
    if config.pretrain.schedule == "cosine" and config.pretrain.milestones:
        yield (
            "pretrain.milestones would be ignored: they are read with pretrain.schedule=multistep. "
            "Set that, or pretrain.milestones=[]."
        )


def _lengths(config: RunConfig) -> Iterator[str]:
    for name, recipe in _stages(config):
        warm = warmup(recipe) if name == "pretrain" else recipe.warmup_epochs
        if warm > recipe.epochs:
            yield (
                f"{name}.warmup_epochs={warm:g} are more than all its {recipe.epochs} epochs: the "
                f"peak rate would never be reached. Set {name}.warmup_epochs lower."
            )


def _stages(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """What trains, by section: pre-training unless its encoder is given, and tasks with a rate."""
    if not config.init:
        yield "pretrain", config.pretrain
    yield from ((name, recipe) for name, recipe in config.tasks if hasattr(recipe, "blr"))
