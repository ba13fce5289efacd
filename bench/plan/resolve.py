"""From what a user asks for to resolved configurations: names, ranges, presets, overrides.

Layers, later ones win: preset, suite file (YAML), ``key=value`` arguments. In each layer common
sections (``data``, ``model``, ``pretrain``, ``finetune``, ``probe``, ``knn``) come first, then
those nested under a method's name. A method's own settings are written ``mae.mask_ratio=0.75``, a
plug-in's ``mto.lambda_spa=0.5``, a section of one method ``mae.pretrain.blr=1e-3``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

import yaml

from bench import registry
from bench.api import VisionShape
from bench.errors import UsageError, unknown
from bench.plan.config import (
    DataConfig,
    FinetuneConfig,
    KnnConfig,
    PretrainConfig,
    ProbeConfig,
    RunConfig,
)
from bench.plan.loading import load_section

SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": VisionShape,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "probe": ProbeConfig,
    "knn": KnnConfig,
}

STUDY_KEYS = (
    *("methods", "epochs", "seeds", "suite_seed", "target", "margin", "extends", "trials"),
    *("recipe", "recipes"),
)

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """A row of the table: a method, its plug-ins with the terms asked for, and an alias."""

    method: str
    plugins: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    alias: str = ""


# --- what the user types ------------------------------------------------------------------------


def split_list(text: str | Iterable[str]) -> list[str]:
    """Splits at commas and blanks, not inside parentheses."""
    text = text if isinstance(text, str) else " ".join(text)
    return [t for t in re.split(r"[,\s]+(?![^(]*\))", text.strip()) if t]


def parse_arm(text: str) -> Arm:
    """``mae``, ``mae+mto``, ``mae+mto(spa,e)`` or, needing no quotes, ``mae+mto:spa.e``.

    ``mae@again`` is the same method under another name, for an A/A comparison.

    Raises:
        UsageError: for unknown names or unreadable text.
    """
    body, at, alias = text.partition("@")
    if at and not re.fullmatch(r"[\w.-]+", alias):
        raise UsageError(f"cannot read '{text}'. The other name goes last: mae+mto@again.")
    method, *parts = body.split("+")
    registry.method_config(method)
    plugins = []
    for part in parts:
        found = re.fullmatch(r"([\w-]+)(?:\(([\w,\s]*)\)|:([\w.]+))?", part)
        if not found:
            raise UsageError(f"cannot read plug-in '{part}' in '{text}'. Write mae+mto(spa,e).")
        name, inside, dotted = found.groups()
        registry.plugin_config(name)
        listed = inside if inside is not None else dotted
        terms = None if listed is None else tuple(t for t in re.split(r"[,.\s]+", listed) if t)
        plugins.append((name, terms))
    return Arm(method, tuple(plugins), alias)


def parse_arms(text: str | Iterable[str]) -> list[Arm]:
    """A list of arms, without repetitions.

    Raises:
        UsageError: if it is empty or holds an unknown name.
    """
    arms = list(dict.fromkeys(parse_arm(t) for t in split_list(text)))
    if not arms:
        known = ", ".join(registry.names("methods"))
        raise UsageError(f"no methods given. Known: {known}. Example: --methods mae,mae+mto.")
    return arms


def parse_epochs(text: str | Iterable[str]) -> list[int]:
    """Budgets in epochs, ascending: ``100,200,400``.

    Raises:
        UsageError: for an empty list, or anything but positive whole numbers.
    """
    budgets = []
    for item in split_list(text):
        if not item.isdigit() or int(item) < 1:
            raise UsageError(
                f"epoch budget '{item}' is not a positive whole number. Example: --epochs 100,200."
            )
        budgets.append(int(item))
    if not budgets:
        raise UsageError("no epoch budgets given. Example: --epochs 100,200,400.")
    return sorted(set(budgets))


def parse_seeds(text: str | Iterable[str]) -> list[int]:
    """Seeds: a count (``5`` is 0 to 4), a range (``3-7``) or a list (``0,2,5``).

    Raises:
        UsageError: for none, or anything else.
    """
    items = split_list(text)
    seeds: list[int] = []
    for item in items:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not found:
            raise UsageError(f"cannot read seeds '{item}'. Write a count 5, a range 0-4 or 0,1,2.")
        first, last = found.groups()
        if last is not None:
            seeds += range(int(first), int(last) + 1)
        elif len(items) == 1:
            seeds += range(int(first))
        else:
            seeds.append(int(first))
    if not seeds:
        raise UsageError("zero seeds leave nothing to run. Write --seeds 3 for seeds 0, 1 and 2.")
    return sorted(set(seeds))


def parse_data(text: str) -> tuple[str, str]:
    """Data-set name and folder: ``digits``, ``cifar10:DIR``, ``imagenet:DIR``, ``torch/NAME:DIR``.

    Raises:
        UsageError: for an unknown name, or a missing or unreadable folder.
    """
    name, _, root = text.partition(":")
    row = registry.dataset("timm" if "/" in name else name)
    if row.needs_root and not root:
        raise UsageError(f"data set '{name}' needs a folder: --data {name}:DIR.")
    if root and not Path(root).expanduser().is_dir():
        raise UsageError(
            f"data folder '{root}' does not exist. Mount or copy the data, or use --data digits."
        )
    return name, str(Path(root).expanduser().resolve()) if root else ""


def parse_overrides(items: Iterable[str]) -> Layer:
    """``pretrain.blr=1.5e-4`` and the like to a nested layer.

    Raises:
        UsageError: for text without a section and a value.
    """
    layer: dict[str, Any] = {}
    for item in items:
        path, equals, value = item.partition("=")
        keys = path.split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise UsageError(
                f"cannot read '{item}'. Write SECTION.KEY=VALUE, as pretrain.blr=1e-3."
            )
        inner = layer
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UsageError(f"'{item}': '{key}' has a value already, so it is no section.")
        try:
            inner[keys[-1]] = yaml.safe_load(value) if value.startswith(("[", "{")) else value
        except yaml.YAMLError as error:
            raise UsageError(f"cannot read the value of '{item}': {error}") from error
    return layer


# --- presets and layers ---------------------------------------------------------------------------

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
    return load_yaml(PRESETS / f"{name}.yaml")


def load_yaml(path: Path) -> tuple[Layer, ...]:
    """A suite file as layers: those of the preset that it ``extends`` first.

    Layers stay apart, so that a common section of the file wins over a preset's section for one
    method.

    Raises:
        UsageError: if it is missing or no mapping of sections.
    """
    try:
        layer = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UsageError(f"cannot read suite file '{path}': {error.strerror}.") from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UsageError(f"suite file '{path}' is not valid YAML: {text}") from error
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


RIVALS = {
    "pretrain": {"blr": "lr", "warmup_epochs": "warmup_share"},
    "finetune": {"blr": "lr"},
}
"""By section: a setting, and the one that would silently win over it unless it is 0."""


def clear_rivals(layer: Layer) -> dict[str, Any]:
    """The layer, where a setting also switches off its rival of an earlier layer."""
    cleared = {}
    for key, value in layer.items():
        if isinstance(value, Mapping):
            pairs = RIVALS.get(key, {}).items()
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


def check_keys(layer: Layer, where: str) -> None:
    """Rejects sections that are neither common ones, nor methods, nor plug-ins, nor study keys.

    Raises:
        UsageError: naming the nearest known one.
    """
    known = {
        *SECTIONS,
        *STUDY_KEYS,
        *registry.names("methods"),
        *registry.names("plugins"),
    }
    for key, value in layer.items():
        if key not in known:
            raise unknown("section", key, known, f"It stands in {where}.")
        if key not in STUDY_KEYS and not isinstance(value, Mapping):
            raise UsageError(f"section '{key}' in {where} must hold settings, not {value!r}.")
        if key in registry.names("methods"):
            inside = {*SECTIONS, *registry.names("plugins")}
            for name, inner in value.items():
                if isinstance(inner, Mapping) and name not in inside:
                    raise unknown("section", f"{key}.{name}", {f"{key}.{n}" for n in inside})


@dataclass(frozen=True)
class Resolver:
    """Turns arms, budgets and seeds into run configurations by the given layers."""

    layers: tuple[Layer, ...]
    suite_seed: int = 0
    init: str = ""

    def resolve(self, arm: Arm, epochs: int, seed: int) -> RunConfig:
        """The complete configuration of one cell.

        Raises:
            UsageError: for unknown or ill-typed settings.
        """
        template = self._template(arm)
        pretrain = dataclasses.replace(template.pretrain, epochs=epochs)
        return dataclasses.replace(template, pretrain=pretrain, seed=seed)

    def _template(self, arm: Arm) -> RunConfig:
        cache: dict[Arm, RunConfig] = self.__dict__.setdefault("_cache", {})
        if arm not in cache:
            cache[arm] = self._build(arm)
        return cache[arm]

    def _build(self, arm: Arm) -> RunConfig:
        values = self._values(arm.method)
        sections = {
            name: load_section(cls, values.get(name, {}), name) for name, cls in SECTIONS.items()
        }
        config = registry.method_config(arm.method)
        hyper = load_section(config, _leaves(values, config), arm.method)
        return RunConfig(
            method=arm.method,
            alias=arm.alias,
            suite_seed=self.suite_seed,
            init=self.init,
            hyper=hyper,
            plugins=tuple(_plugin(name, terms, values) for name, terms in arm.plugins),
            **sections,
        )

    def _values(self, method: str) -> dict[str, Any]:
        """All layers merged for one method; its own settings lie at the top level."""
        merged: dict[str, Any] = {"pretrain": {"epochs": 1}}
        for layer in map(clear_rivals, self.layers):
            own = layer.get(method, {})
            common = {k: v for k, v in layer.items() if k not in registry.names("methods")}
            merged = merge(merge(merged, common), {"own": own})
            merged = merge(merged, {k: v for k, v in own.items() if isinstance(v, Mapping)})
        return merged


def _leaves(values: Layer, config: type) -> dict[str, Any]:
    return {k: v for k, v in values.get("own", {}).items() if not isinstance(v, Mapping)}


def _plugin(name: str, terms: tuple[str, ...] | None, values: Layer) -> tuple[str, Any]:
    config = load_section(registry.plugin_config(name), values.get(name, {}), name)
    if terms is None:
        return name, config
    if not hasattr(config, "with_terms"):
        raise UsageError(f"plug-in '{name}' has no terms that can be switched.")
    return name, config.with_terms(terms)


def run_from_plain(values: Mapping[str, Any]) -> RunConfig:
    """The configuration stored in a run's config.json.

    Raises:
        UsageError: if it does not fit this version.
    """
    plain = dict(values)
    method = plain.get("method", "")
    sections = {n: load_section(cls, plain.pop(n), n) for n, cls in SECTIONS.items()}
    hyper = load_section(registry.method_config(method), plain.pop("hyper"), method)
    plugins = tuple(
        (name, load_section(registry.plugin_config(name), config, name))
        for name, config in plain.pop("plugins")
    )
    return RunConfig(hyper=hyper, plugins=plugins, **sections, **plain)
