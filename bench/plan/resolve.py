"""From arms, budgets, seeds and layers to the complete configurations of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import registry
from bench.errors import UsageError
from bench.plan.config import RunConfig
from bench.plan.keys import SECTIONS, Layer
from bench.plan.layers import clear_rivals, merge, merged
from bench.plan.loading import load_section
from bench.plan.typed import Arm, Wrap, parse_overrides, split_list


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
        config = registry.METHODS.config(arm.method)
        hyper = load_section(config, _leaves(values, config), arm.method)
        plugins = [(wrap.name, *wrapped(wrap, values)) for wrap in arm.plugins]
        return RunConfig(
            method=arm.method,
            alias=arm.alias,
            suite_seed=self.suite_seed,
            init=self.init,
            hyper=hyper,
            plugins=tuple((name, settings) for name, settings, _ in plugins),
            own=tuple(f"{name}.{key}" for name, _, keys in plugins for key in keys),
            tasks=tuple(
                (name, load_section(registry.TASKS.config(name), values.get(name, {}), name))
                for name in self.tasks()
            ),
            **sections,
        )

    def tasks(self) -> list[str]:
        """Names of the evaluation tasks: those that the last layer to name any names.

        Raises:
            UsageError: for an unknown name, or an empty list.
        """
        named = merged(self.layers).get("tasks")
        if named is None:
            return registry.standing_tasks()
        wanted = split_list(named)
        for name in wanted:
            registry.TASKS.config(name)
        if not wanted:
            known = ", ".join(registry.TASKS.ordered())
            raise UsageError(f"no evaluation tasks given. Known: {known}. Example: tasks: [knn].")
        return [name for name in registry.TASKS.ordered() if name in wanted]

    def _values(self, method: str) -> dict[str, Any]:
        """All layers merged for one method; its own settings lie at the top level."""
        merged: dict[str, Any] = {"pretrain": {"epochs": 1}}
        for layer in map(clear_rivals, self.layers):
            own = merge(followed(method, layer), layer.get(method, {}))
            common = {k: v for k, v in layer.items() if k not in registry.METHODS.names()}
            merged = merge(merge(merged, common), {"own": own})
            merged = merge(merged, {k: v for k, v in own.items() if isinstance(v, Mapping)})
        return merged


def followed(method: str, layer: Layer) -> Layer:
    """What a layer says of the method whose recipe this one takes, as far as both have it."""
    config = registry.METHODS.config(method)
    followed = layer.get(registry.recipe_of(method), {})
    names = {f.name for f in dataclasses.fields(config)}
    return {k: v for k, v in followed.items() if k in names or isinstance(v, Mapping)}


def _leaves(values: Layer, config: type) -> dict[str, Any]:
    return {k: v for k, v in values.get("own", {}).items() if not isinstance(v, Mapping)}


def wrapped(wrap: Wrap, values: Layer) -> tuple[Any, tuple[str, ...]]:
    """A plug-in's configuration in one arm, and the settings that the arm's name has to show.

    Those are the fields in which it differs from what the layers and its terms alone would give,
    in the order of the class: equal configurations have one name, others differ in theirs.

    Raises:
        UsageError: for unknown or ill-typed settings, or terms where there are none.
    """
    cls = registry.PLUGINS.config(wrap.name)
    layered = load_section(cls, values.get(wrap.name, {}), wrap.name)
    config = layered if wrap.terms is None else _switched(layered, wrap)
    if not wrap.settings:
        return config, ()
    typed = parse_overrides(f"{wrap.name}.{key}={value}" for key, value in wrap.settings)
    config = load_section(cls, {**vars(config), **typed[wrap.name]}, wrap.name)
    terms = getattr(config, "terms", None)
    same = terms is None or terms == layered.terms
    plain = layered if same else layered.with_terms(terms)
    names = (f.name for f in dataclasses.fields(cls))
    return config, tuple(n for n in names if getattr(config, n) != getattr(plain, n))


def _switched(config: Any, wrap: Wrap) -> Any:
    if not hasattr(config, "with_terms"):
        raise UsageError(f"plug-in '{wrap.name}' has no terms that can be switched.")
    return config.with_terms(wrap.terms)


def run_from_plain(values: Mapping[str, Any]) -> RunConfig:
    """The configuration stored in a run's config.json.

    Raises:
        UsageError: if it does not fit this version.
    """
    plain = dict(values)
    method, plugins = plain.get("method"), plain.pop("plugins", [])
    parts = [*SECTIONS, "hyper"]
    paired = isinstance(plugins, list) and all(isinstance(p, list) and len(p) == 2 for p in plugins)
    wrong = [n for n in parts if not isinstance(plain.get(n), Mapping)]
    wrong += [n for n in ("method",) if not isinstance(method, str)]
    wrong += [] if paired else ["plugins"]
    wrong += [n for n in registry.TASKS.ordered() if not isinstance(plain.get(n, {}), Mapping)]
    if wrong:
        raise UsageError(
            f"a stored configuration is damaged: '{wrong[0]}' is missing or misshapen."
        )
    sections = {n: load_section(cls, plain.pop(n), n) for n, cls in SECTIONS.items()}
    hyper = load_section(registry.METHODS.config(str(method)), plain.pop("hyper"), str(method))
    loaded = tuple(
        (str(name), load_section(registry.PLUGINS.config(str(name)), config, str(name)))
        for name, config in plugins
    )
    tasks = tuple(
        (name, load_section(registry.TASKS.config(name), plain.pop(name), name))
        for name in registry.TASKS.ordered()
        if name in plain
    )
    for name in plain.keys() - {f.name for f in dataclasses.fields(RunConfig)}:
        registry.TASKS.config(name)  # says what is unknown, and what is not
    own = tuple(plain.pop("own", ()))
    return RunConfig(hyper=hyper, plugins=loaded, own=own, tasks=tasks, **sections, **plain)
