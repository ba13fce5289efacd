"""What settings must fulfil together: geometry, rates, warm-up. Pure; no torch.

Each alone is held to the rule beside its field (:mod:`bench.api.rules`); what only a built model or
the images can tell is asked of them (:mod:`bench.work.vet`).
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.errors import UsageError
from bench.plan.config import RunConfig
from bench.plan.sections import peak_lr, warmup


def check(config: RunConfig) -> None:
    """Refuses a configuration whose settings cannot go together.

    Raises:
        UsageError: for the first that is found.
    """
    for found in complaints(config):
        raise UsageError(f"{config.arm}, {config.pretrain.epochs} epochs: {found}")


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
    if model.width % model.heads:
        yield f"model.heads={model.heads} do not divide model.width={model.width}."
    for name in ("mean", "std"):
        count = len(getattr(data, name))
        if count != model.channels:
            yield (
                f"data.{name} has {count} values, the model {model.channels} channels. "
                f"Set model.channels={count}, or as many values."
            )


def _rates(config: RunConfig) -> Iterator[str]:
    for name in ("finetune",) if config.init else ("pretrain", "finetune"):
        recipe = getattr(config, name)
        peak = peak_lr(recipe)
        if not peak > 0:
            yield f"{name}.lr and {name}.blr are 0, so nothing would be learnt. Set one."
        elif recipe.min_lr > peak:
            yield f"{name}.min_lr={recipe.min_lr:g} is above the peak rate {peak:g}."
    if not peak_lr(config.probe) > 0:
        yield "probe.blr is 0, so the probe would learn nothing."
    if config.pretrain.schedule == "multistep" and not config.pretrain.milestones:
        yield "pretrain.schedule=multistep needs pretrain.milestones, as [0.875]."


def _lengths(config: RunConfig) -> Iterator[str]:
    lengths = {
        "pretrain": (warmup(config.pretrain), config.pretrain.epochs),
        "finetune": (config.finetune.warmup_epochs, config.finetune.epochs),
        "probe": (config.probe.warmup_epochs, config.probe.epochs),
    }
    for name, (warm, epochs) in lengths.items():
        if warm > epochs and not (name == "pretrain" and config.init):
            yield (
                f"{name}.warmup_epochs={warm:g} are more than all its {epochs} epochs: the peak "
                f"rate would never be reached. Set {name}.warmup_epochs lower."
            )
