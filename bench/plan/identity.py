"""Who a run is: ids and digests of configurations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import fields
from functools import lru_cache
from typing import Any

from bench import registry
from bench.plan.config import RunConfig, Settings
from bench.plan.sections import DataConfig

RECIPE_VERSION = 1
"""Raised when the meaning of a recipe field changes, so that old results are not reused."""


def to_plain(section: Settings) -> Any:
    """Plain JSON values of a section, every default spelled out.

    But for fields that a class calls ``YOUNG``: they came when there were results already, and are
    left out at their defaults, so that ids stay.
    """
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        young = getattr(section, "YOUNG", ())
        values = ((f, getattr(section, f.name)) for f in fields(section))
        return {f.name: to_plain(v) for f, v in values if f.name not in young or v != f.default}
    if isinstance(section, tuple | list):
        return [to_plain(v) for v in section]
    return section


@lru_cache(maxsize=65536)
def _canonical(section: Settings) -> str:
    return json.dumps(to_plain(section), sort_keys=True, separators=(",", ":"))


def digest(*parts: Any) -> str:
    """12 hexadecimal digits of SHA-256 over the canonical JSON of the parts."""
    text = "\n".join(_canonical(p) for p in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=64)
def _without_labels(data: DataConfig) -> DataConfig:
    return dataclasses.replace(data, labels=0)


def _pretrain_parts(config: RunConfig) -> tuple[Any, ...]:
    data = _without_labels(config.data)
    identity = (RECIPE_VERSION, config.method, config.alias, config.init)
    seeds = (config.seed, config.suite_seed)
    return (identity, seeds, data, config.model, config.hyper, config.plugins, config.pretrain)


def pretrain_id(config: RunConfig) -> str:
    """Id of the pre-training run; cells that differ only in evaluation share it."""
    return _readable("pre", config) + digest(*_pretrain_parts(config))


def cell_id(config: RunConfig) -> str:
    """Id of the evaluation run of this cell, with the recipes of all its tasks."""
    evaluation = (config.data, *_task_parts(config.tasks))
    return _readable("fin", config) + digest(*_pretrain_parts(config), *evaluation)


def score_key(config: RunConfig, task: str) -> str:
    """What a task's score depends on beside the encoder: its recipe and the labels it may see."""
    return digest(config.data, task, config.task(task))


def _task_parts(tasks: tuple[tuple[str, Settings], ...]) -> list[Any]:
    """A standing task's part is its bare recipe, None where it is left out; any other's is named.

    So a cell of the standing tasks has the same id whatever tasks there are besides.
    """
    named = dict(tasks)
    standing = registry.standing_tasks()
    others = [(name, recipe) for name, recipe in tasks if name not in standing]
    return [*(named.get(name) for name in standing), *others]


def recipe_digest(config: RunConfig) -> str:
    """Hash of the evaluation recipe and data: equal for every cell one table may hold."""
    tasks = tuple(
        (name, dataclasses.replace(recipe, repeat=0) if hasattr(recipe, "repeat") else recipe)
        for name, recipe in config.tasks
    )
    return digest(config.data, config.model, *_task_parts(tasks))


READABLE = 100
"""Characters of a run's name that an arm with settings of its own may take: it is a folder's."""


def _readable(stage: str, config: RunConfig) -> str:
    arm = "".join(c if c.isalnum() or c in "+@" else "." for c in config.arm).strip(".")
    arm = arm[:READABLE] if config.own else arm
    name = config.data.name.replace("/", ".")
    return f"{stage}-{arm}-{name}-e{config.pretrain.epochs}-s{config.seed}-"
