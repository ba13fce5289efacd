"""Is the comparison fair? A lint over resolved configurations, before anything is computed. Pure.

Errors are differences that would void a comparison: between arms of one method anything but the
plug-ins, between budgets anything but the number of epochs. Warnings are things a reader should
know: a long warm-up, constants counted in steps, several fine-tuning recipes, uneven tuning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import registry
from bench.api import needs_of
from bench.errors import UsageError
from bench.plan.config import RunConfig
from bench.plan.identity import recipe_digest, to_plain
from bench.plan.layers import flat, has_recipes
from bench.plan.sections import warmup
from bench.plan.study import plain_config

DECLARED = ("plugins", "own", "alias", "seed", "pretrain.epochs")
"""Keys that may differ between the arms of a method: what is being compared."""

LONG_WARMUP = 0.2

UNEQUAL = "unequal tuning: "
"""Begins the warning that names an arm tuned more or less than its baseline."""

LAGS = "the teacher's time constant stays the same number of steps at every budget"

STEP_CONSTANTS = {"ema_decay": ("ema_span", LAGS), "momentum": ("momentum_span", LAGS)}
"""Settings that count steps: what says the same as a share of the run instead, and what is wrong.
"""


def check(configs: Sequence[RunConfig], trials: Mapping[str, int], baseline: str = "") -> list[str]:
    """Warnings about a study; ``trials`` counts the tuning trials of each arm.

    ``baseline`` is the arm that all others are compared with, empty for each arm's own.

    Raises:
        UsageError: if arms or budgets differ in an undeclared setting, or two arms share a name.
    """
    _check_names(configs)
    _check_declared(configs)
    _check_masks(configs)
    unique = list({(c.arm, c.pretrain.epochs): c for c in configs}.values())
    return [
        *_long_warmups(unique),
        *_short_stages(list({c.method: c for c in configs}.values())),
        *_step_constants(unique),
        *_several_masks(unique),
        *_recipes(unique),
        *_tuning(unique, trials, baseline),
        *_borrowed(unique),
        *([] if baseline else _alone(unique)),
    ]


def _borrowed(configs: Sequence[RunConfig]) -> Iterable[str]:
    """Outside methods without a recipe, with what they do not share with a method that has one."""
    methods = {c.method: c for c in configs}
    outside = [m for m in methods if m in registry.METHODS.points()]
    for method in outside:
        if registry.recipe_of(method) or has_recipes(method):
            continue
        said = f"NO RECIPE: {method} brings none and states no Config.recipe_of, so it runs by "
        said += "the settings that all methods share, tuned for none"
        for other in (m for m in methods if m not in outside):
            unlike = differences(methods[method], methods[other])
            keys = [k for k in unlike if not k.startswith((*DECLARED, "method", "hyper"))]
            found = ", ".join(f"{k} ({unlike[k][0]} and {unlike[k][1]})" for k in keys)
            said += f"; it differs from {other} in {found or 'no setting that both have'}"
        yield said


def _alone(configs: Sequence[RunConfig]) -> Iterable[str]:
    """Arms whose baseline the study does not have."""
    arms = {c.arm: c.base_arm for c in configs}
    for arm, base in arms.items():
        if base not in arms:
            yield (
                f"{arm} is to be compared with {base}, which is not among the methods, so there "
                f"are no differences: add {base} to --methods"
            )


def unfair(warnings: Iterable[str]) -> dict[str, str]:
    """Of a plan's warnings, those that void a claim about an arm, by arm."""
    found = (text for text in warnings if text.startswith(UNEQUAL))
    return {text.removeprefix(UNEQUAL).partition(" had ")[0]: text for text in found}


def differences(one: RunConfig, two: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings in which two configurations differ, by name."""
    a, b = flat(plain_config(one)), flat(plain_config(two))
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def switched_on(config: RunConfig) -> str:
    """What sets an arm apart from its method: plug-ins with settings joined by +, '' if nothing.

    A plug-in's settings may say which of them are ``switched`` on; else all are named.
    """
    parts = []
    for name, plugin in config.plugins:
        shown = getattr(plugin, "switched", None) or to_plain(plugin)
        parts.append(f"{name} ({', '.join(f'{k}={v}' for k, v in shown.items())})")
    return " + ".join(parts)


def _check_names(configs: Sequence[RunConfig]) -> None:
    """One name, one row of the tables: it must not stand for two settings of a plug-in."""
    named: dict[str, tuple[Any, ...]] = {}
    for config in configs:
        if named.setdefault(config.arm, config.plugins) != config.plugins:
            raise UsageError(
                f"two arms of different settings are both called {config.arm}. "
                f"Give one another name, as {config.arm}@other."
            )


def _check_declared(configs: Sequence[RunConfig]) -> None:
    first: dict[str, RunConfig] = {}
    for config in configs:
        reference = first.setdefault(config.method, config)
        found = [
            f"{key} ({old} and {new})"
            for key, (old, new) in _quick_differences(reference, config)
            if key not in DECLARED
        ]
        if found:
            raise UsageError(
                f"{reference.arm} at {reference.pretrain.epochs} epochs and {config.arm} at "
                f"{config.pretrain.epochs} differ in {'; '.join(found)}. Only plug-ins, epochs "
                "and seed may differ between compared runs."
            )


def _check_masks(configs: Sequence[RunConfig]) -> None:
    """Several masks an image are counted in whole images and whole passes over them."""
    for config in configs:
        masks, recipe = config.masks, config.pretrain
        if masks == 1:
            continue
        said = f"{config.arm} has {masks} masks an image in a step, each of which counts: "
        if needs_of(config.hyper).together != 1:
            raise UsageError(
                f"{said}{config.method} reads statistics over images, which would see each of them "
                f"{masks} times. Choose another method."
            )
        counted = (("epochs", recipe.epochs), ("pretrain.batch_size", recipe.batch_size))
        for name, value in counted:
            if value % masks:
                raise UsageError(
                    f"{said}{name}={value} is no multiple of {masks}. "
                    f"The nearest is {max(masks, round(value / masks) * masks)}."
                )


def _several_masks(configs: Sequence[RunConfig]) -> Iterable[str]:
    for config in {c.arm: c for c in configs if c.masks > 1}.values():
        masks, size = config.masks, config.pretrain.batch_size
        yield (
            f"{config.arm}: EFFECTIVE EPOCHS. An image under {masks} masks counts {masks} times: a "
            f"step of {size} is {size // masks} images, and each image is loaded in one epoch of "
            f"{masks}. Order and masks cannot be those of {config.base_arm}, so nothing is claimed"
        )


def _quick_differences(one: RunConfig, two: RunConfig) -> Iterable[tuple[str, tuple[Any, Any]]]:
    """:func:`differences`, skipping the work when the shared sections are the same objects."""
    shared = ("data", "model", "hyper", "tasks", "suite_seed", "init")
    same = all(getattr(one, s) == getattr(two, s) for s in shared)
    if same and _without_epochs(one) == _without_epochs(two):
        return ()
    return differences(one, two).items()


def _without_epochs(config: RunConfig) -> tuple[Any, ...]:
    recipe = vars(config.pretrain)
    return tuple(value for name, value in recipe.items() if name != "epochs")


def _long_warmups(configs: Sequence[RunConfig]) -> Iterable[str]:
    for config in configs:
        share = warmup(config.pretrain) / config.pretrain.epochs
        if share > LONG_WARMUP + 1e-9:  # a share of exactly that may round up
            yield (
                f"{config.arm} at {config.pretrain.epochs} epochs spends {share:.0%} of its budget "
                "warming up; --recipe scaled of an imagenet preset, or pretrain.warmup_share, "
                "scales it with the budget"
            )


def _short_stages(configs: Sequence[RunConfig]) -> Iterable[str]:
    for config in configs:
        for task, recipe in config.tasks:
            if getattr(recipe, "warmup_epochs", 0.0) >= getattr(recipe, "epochs", math.inf):
                yield (
                    f"{config.method}: {task} ends in its warm-up ({recipe.warmup_epochs:g} of "
                    f"{recipe.epochs} epochs): the rate never reaches its peak"
                )


def _step_constants(configs: Sequence[RunConfig]) -> Iterable[str]:
    if len({c.pretrain.epochs for c in configs}) < 2:
        return
    for method in dict.fromkeys(c.method for c in configs):
        config = next(c for c in configs if c.method == method)
        values = vars(config.hyper)
        for name, (share, why) in STEP_CONSTANTS.items():
            if values.get(name) and not values.get(share):
                yield f"{method}: {name}={values[name]} does not scale with the budget: {why}"


def _recipes(configs: Sequence[RunConfig]) -> Iterable[str]:
    recipes = {recipe_digest(c) for c in configs}
    if len(recipes) > 1:
        yield f"{len(recipes)} different evaluation recipes in one study; their tables stay apart"


def _tuning(
    configs: Sequence[RunConfig], trials: Mapping[str, int], baseline: str
) -> Iterable[str]:
    for config in {c.arm: c for c in configs}.values():
        against = baseline or config.base_arm
        if config.arm == against:
            continue
        base, own = trials.get(against), trials.get(config.arm)
        if own is not None and own != base:
            yield (
                f"{UNEQUAL}{config.arm} had {own} trials, {against} "
                f"{'none recorded' if base is None else base}"
            )
