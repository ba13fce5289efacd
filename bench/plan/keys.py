"""What a layer of settings may hold: every key known, every value of its type and within its rule.

Also of sections that a study does not use: what is misspelt there would be ignored in silence.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any

from bench import registry
from bench.api import VisionShape
from bench.api.rules import Epochs, Name, Natural, Range, Seed, Tag, hints
from bench.errors import UsageError, shown, unknown
from bench.plan.loading import coerce
from bench.plan.sections import DataConfig, PretrainConfig

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": VisionShape,
    "pretrain": PretrainConfig,
}
"""Sections that every cell has beside its method's, plug-ins' and evaluation tasks'."""

Layer = Mapping[str, Any]

Margin = Annotated[float, Range(0, 100)]
"""Points of accuracy within which two arms count as equal."""

SINGLE: dict[str, Any] = {
    "suite_seed": Seed,
    "target": Epochs,
    "baseline": str,
    "margin": Margin,
    "extends": Name,
    "recipe": Tag,
}
"""Study keys of one value."""

LISTS = ("methods", "epochs", "seeds", "tasks")
"""Study keys that are a word, a number, or a list of them."""

STUDY_KEYS = (*LISTS, *SINGLE, "trials", "recipes")


def check_keys(layer: Layer, where: str) -> None:
    """Rejects unknown keys, and values that no study could use.

    Raises:
        UsageError: naming the nearest known one.
    """
    known = {*_inside(), *STUDY_KEYS, *registry.METHODS.names()}
    for key, value in layer.items():
        if key not in known:
            raise unknown("section", shown(key), known, f"It stands in {where}.")
        if key in STUDY_KEYS:
            _check_study_key(key, value, where)
        elif not isinstance(value, Mapping):
            raise UsageError(f"section '{key}' in {where} must hold settings, not {shown(value)}.")
        elif key in registry.METHODS.names():
            _check_method(key, value)
        else:
            _check_values(_config(key), value, key)


def check_typed(layer: Layer) -> None:
    """The same for settings on the command line, where a study's own keys are flags.

    Raises:
        UsageError: naming the flag, or the nearest known section.
    """
    for key in layer:
        if key in STUDY_KEYS:
            flag = key.replace("_", "-")
            raise UsageError(f"'{key}' is no section of settings. Write --{flag}, or a suite file.")
    check_keys(layer, "the settings")


def takes_fractions(key: str) -> bool:
    """Whether a setting, by its full name, is a number with a fraction; not if there is none."""
    *path, name = key.split(".")
    methods = registry.METHODS.names() if len(path) == 1 else ()
    if not path or path[-1] not in {*_inside(), *methods}:
        return False
    of_method = path[-1] in methods
    cls = registry.METHODS.config(path[-1]) if of_method else _config(path[-1])
    hint = hints(cls).get(name)
    while typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    return hint is float


def _config(name: str) -> type:
    kind = registry.TASKS if name in registry.TASKS.names() else registry.PLUGINS
    return SECTIONS.get(name) or kind.config(name)


def _inside() -> set[str]:
    """Sections that a method may have of its own."""
    return {*SECTIONS, *registry.TASKS.names(), *registry.PLUGINS.names()}


def _check_method(method: str, values: Layer) -> None:
    inside = _inside()
    own = {}
    for name, inner in values.items():
        if name in inside and isinstance(inner, Mapping):
            _check_values(_config(name), inner, f"{method}.{name}")
        elif name in inside or isinstance(inner, Mapping):
            if name in inside:
                where = f"section '{method}.{name}'"
                raise UsageError(f"{where} must hold settings, not {shown(inner)}.")
            raise unknown("section", f"{method}.{shown(name)}", {f"{method}.{n}" for n in inside})
        else:
            own[name] = inner
    _check_values(registry.METHODS.config(method), own, method)


def _check_values(cls: type, values: Layer, where: str) -> None:
    """Each value against its field; what else a section needs may come from another layer."""
    fields = hints(cls)
    for key, value in values.items():
        if key not in fields:
            raise unknown("setting", f"{where}.{shown(key)}", [f"{where}.{k}" for k in fields])
        if cls is PretrainConfig and key == "epochs":
            raise UsageError(
                f"{where}.epochs={shown(value)} would be ignored: budgets are given by --epochs, "
                "or 'epochs:' at the top of a suite file."
            )
        hint = fields[key]
        if isinstance(value, Mapping) and isinstance(hint, type):
            _check_values(hint, value, f"{where}.{key}")
        else:
            coerce(value, hint, f"{where}.{key}")


def _check_study_key(key: str, value: Any, where: str) -> None:
    if value is None:
        return
    if key in SINGLE:
        coerce(value, SINGLE[key], key)
        return
    if key in LISTS:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in items):
            raise UsageError(
                f"'{key}' in {where} must be a list of words or numbers, not {shown(value)}."
            )
        return
    if not isinstance(value, Mapping):
        raise UsageError(
            f"'{key}' in {where} must hold names with their values, not {shown(value)}."
        )
    for name, inner in value.items():
        if key == "trials":
            coerce(inner, Natural, f"trials.{name}")
        elif isinstance(inner, Mapping):
            check_keys(inner, f"the recipe '{shown(name)}' of {where}")
            if ignored := [k for k in STUDY_KEYS if k in inner and k != "tasks"]:
                raise UsageError(
                    f"'{ignored[0]}' in the recipe '{shown(name)}' of {where} would be ignored: "
                    "a recipe holds settings and tasks. Write it at the top."
                )
        elif inner is not None:
            raise UsageError(f"recipe '{shown(name)}' in {where} must hold sections.")
