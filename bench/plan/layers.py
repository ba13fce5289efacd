"""Layers of settings: presets, suite files and overrides, later ones winning.

In each layer common sections (``data``, ``model``, ``pretrain`` and one for each evaluation task,
such as ``finetune``) come first, then those nested under a method's name. A method's own settings
are written ``mae.mask_ratio=0.75``, a plug-in's ``x.scale=0.5``, a section of one method
``mae.pretrain.blr=1e-3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import UsageError, unknown
from bench.plan.keys import SECTIONS, STUDY_KEYS, Layer, check_keys
from bench.plan.reading import read_file

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Built-in presets."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


@cache
def load_preset(name: str) -> tuple[Layer, ...]:
    """A built-in preset as layers: those it extends first.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in preset_names():
        raise unknown("preset", name, preset_names())
    *earlier, layer = load_yaml(PRESETS / f"{name}.yaml")
    return (*earlier, _with_recipes(layer, name))


def _with_recipes(layer: Layer, preset: str) -> Layer:
    """A preset's layer with what every method sets of its own there (its ``recipes.yaml``)."""
    for method in registry.METHODS.ordered():
        own = _recipes(method).get(preset)
        if own:
            layer = merge({method: own}, layer)
    return layer


@cache
def _recipes(method: str) -> Layer:
    """A method's own settings by preset, from the file beside its configuration class.

    Raises:
        UsageError: if the file is no mapping of presets to settings.
    """
    folder = registry.folder_of(registry.METHODS.row(method).config)
    path = folder / "recipes.yaml" if folder else None
    if path is None or not path.is_file():
        return {}
    values = read_file(path)
    if not isinstance(values, dict) or not all(isinstance(v, dict) for v in values.values()):
        raise UsageError(f"'{path}' must hold settings of '{method}' under names of presets.")
    for name, own in values.items():
        check_keys({method: own}, f"'{name}' of '{path}'")
    return values


def has_recipes(method: str) -> bool:
    """Whether a method's package ships settings of its own for presets."""
    return bool(_recipes(method))


def load_yaml(path: Path) -> tuple[Layer, ...]:
    """A suite file as layers: those of the preset that it ``extends`` first.

    Layers stay apart, so that a common section of the file wins over a preset's section for one
    method.

    Raises:
        UsageError: if it is missing, no mapping of sections, or holds what no study could use.
    """
    layer = read_file(path) or {}
    if not isinstance(layer, dict):
        raise UsageError(f"suite file '{path}' must hold sections such as 'pretrain:'.")
    layer = {k: {} if v is None and k not in STUDY_KEYS else v for k, v in layer.items()}
    check_keys(layer, f"'{path.name}'")
    return (*(load_preset(layer["extends"]) if layer.get("extends") else ()), layer)


def merged(layers: Iterable[Layer]) -> dict[str, Any]:
    """All layers in one, later ones winning; for what is not resolved per method."""
    return reduce(merge, layers, {})


def merge(base: Layer, over: Layer) -> dict[str, Any]:
    """``base`` with the values of ``over``, nested mappings merged."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def flat(nested: Layer, prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``section.key`` to value."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def rivals(section: str) -> Mapping[str, str]:
    """Settings of a section, each with the one that would silently win over it unless it is 0."""
    if section in registry.TASKS.ordered():
        return getattr(registry.TASKS.config(section), "RIVALS", {})
    return getattr(SECTIONS.get(section), "RIVALS", {})


def clear_rivals(layer: Layer) -> dict[str, Any]:
    """The layer, where a setting also switches off its rival of an earlier layer."""
    cleared = {}
    for key, value in layer.items():
        if isinstance(value, Mapping):
            pairs = rivals(key).items()
            off = {r: 0 for name, r in pairs if name in value and r not in value}
            value = {**clear_rivals(value), **off}
        cleared[key] = value
    return cleared


def load_recipe(name: str, values: Layer) -> Layer:
    """The layer called ``name`` among a preset's ``recipes``; none for an empty name.

    Raises:
        UsageError: for an unknown name.
    """
    recipes = values.get("recipes") or {}
    if name and name not in recipes:
        raise unknown("recipe", name, recipes, "A preset or suite file lists its 'recipes'.")
    return recipes[name] or {} if name else {}
