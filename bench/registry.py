"""What can be named on the command line: literal tables, read without importing anything.

Outside packages add rows through the entry-point groups ``mto_bench.methods``,
``mto_bench.plugins`` and ``mto_bench.datasets``. A method's entry point names the method class, a
plug-in's its wrapping function; either carries its configuration class as the attribute
``Config``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.errors import UsageError, unknown


@dataclass(frozen=True)
class Row:
    """An implementation and its (torch-free) configuration class, each ``module:attribute``."""

    target: str
    config: str


@dataclass(frozen=True)
class DatasetRow:
    """A data-set loader, the preset chosen when none is named, and whether it needs a folder."""

    target: str
    preset: str
    needs_root: bool


METHODS: dict[str, Row] = {
    "mae": Row("baselines.mae.model:MAE", "baselines.mae.config:MAEConfig"),
    "simmim": Row("baselines.simmim.model:SimMIM", "baselines.simmim.config:SimMIMConfig"),
    "data2vec": Row(
        "baselines.data2vec.model:Data2Vec", "baselines.data2vec.config:Data2VecConfig"
    ),
}

PLUGINS: dict[str, Row] = {
    "mto": Row("mto.plugin:with_mto", "mto.config:MTOConfig"),
    "null": Row("null.plugin:with_null", "null.plugin:NullConfig"),
}

DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow("bench.data.sets.digits:digits", "digits", needs_root=False),
    "procedural": DatasetRow(
        "bench.data.sets.procedural:procedural", "procedural", needs_root=False
    ),
    "fashion-mnist": DatasetRow(
        "bench.data.sets.fashion_mnist:fashion_mnist", "fashion-mnist", needs_root=False
    ),
    "cifar10": DatasetRow("bench.data.sets.cifar:cifar10", "cifar", needs_root=True),
    "cifar100": DatasetRow("bench.data.sets.cifar:cifar100", "cifar", needs_root=True),
    "imagenet": DatasetRow("bench.data.sets.folder:image_folder", "imagenet", needs_root=True),
    "folder": DatasetRow("bench.data.sets.folder:image_folder", "imagenet", needs_root=True),
    "timm": DatasetRow("bench.data.sets.timm:timm_factory", "imagenet", needs_root=True),
}

TIMM_PREFIXES = ("torch", "hfds")
"""Kinds of data sets in timm's factory that can be indexed."""

PROBE = "mto.probe:LayerProbe"
"""Measures heterogeneity, attention mass and mask-token distance of any method, both arms alike."""


@cache
def _outside(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"mto_bench.{group}")}


def load(target: str) -> Any:
    """The object named ``module:attribute``."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def names(kind: str) -> list[str]:
    """Known names of ``methods``, ``plugins`` or ``datasets``, outside packages included."""
    tables: dict[str, Mapping[str, object]] = {
        "methods": METHODS,
        "plugins": PLUGINS,
        "datasets": DATASETS,
    }
    table = tables[kind]
    return sorted([*table, *(name for name in _outside(kind) if name not in table)])


def _find(kind: str, table: dict[str, Row], name: str) -> Row | EntryPoint:
    found = table.get(name) or _outside(kind).get(name)
    if found is None:
        hint = f"See 'python -m bench.run ls {kind}'."
        raise unknown(kind.rstrip("s"), name, names(kind), hint)
    return found


def _target(row: Row | EntryPoint) -> Any:
    return load(row.target) if isinstance(row, Row) else row.load()


def _config(row: Row | EntryPoint, name: str) -> type:
    if isinstance(row, Row):
        return load(row.config)
    config = getattr(row.load(), "Config", None)
    if config is None:
        raise UsageError(f"'{name}' ({row.value}) has no attribute 'Config', a frozen dataclass.")
    return config


def method(name: str) -> Any:
    """The class of a method. Imports torch."""
    return _target(_find("methods", METHODS, name))


def method_config(name: str) -> type:
    """The configuration dataclass of a method.

    Raises:
        UsageError: for an unknown name.
    """
    return _config(_find("methods", METHODS, name), name)


def plugin(name: str) -> Any:
    """The wrapping function of a plug-in. Imports torch."""
    return _target(_find("plugins", PLUGINS, name))


def plugin_config(name: str) -> type:
    """The configuration dataclass of a plug-in.

    Raises:
        UsageError: for an unknown name.
    """
    return _config(_find("plugins", PLUGINS, name), name)


def dataset(name: str) -> DatasetRow:
    """The row of a data set, those with a slash being timm's; an outside one is to need a folder.

    Raises:
        UsageError: for an unknown name, or a prefix that timm would take for a folder's name.
    """
    prefix, slash, _ = name.partition("/")
    if slash:
        if prefix not in TIMM_PREFIXES:
            raise unknown("prefix of a data set", f"{prefix}/", [f"{p}/" for p in TIMM_PREFIXES])
        return DATASETS["timm"]
    if name in DATASETS:
        return DATASETS[name]
    point = _outside("datasets").get(name)
    if point is None:
        raise unknown("data set", name, names("datasets"), "See 'python -m bench.run ls datasets'.")
    return DatasetRow(point.value, "imagenet", needs_root=True)
