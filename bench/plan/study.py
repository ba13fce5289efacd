"""The plan of a study: which runs there are, by id. Pure; no torch, no clock, no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.plan import sense
from bench.plan.config import RunConfig
from bench.plan.identity import cell_id, pretrain_id, recipe_digest, to_plain
from bench.plan.resolve import Resolver
from bench.plan.sections import peak_lr, warmup
from bench.plan.typed import Arm
from bench.registry import endpoint

PRETRAIN, CELL = "pretrain", "cell"


@dataclass(frozen=True)
class Cell:
    """One cell: its configuration, the run that pre-trains it and the run that evaluates it."""

    config: RunConfig
    run_id: str
    pretrain_id: str


@dataclass(frozen=True)
class Task:
    """One run to compute: a pre-training, or the evaluation that waits for it."""

    stage: str
    run_id: str
    config: RunConfig
    parent: str = ""


@dataclass(frozen=True, kw_only=True)
class Study:
    """All cells, and how they will be compared, fixed before there are results."""

    cells: tuple[Cell, ...]
    preset: str
    target_epochs: int | None = None
    baseline: str = ""
    margin: float = 0.1
    alpha: float = 0.05

    @property
    def ids(self) -> list[str]:
        """Ids of all evaluation runs."""
        return [cell.run_id for cell in self.cells]

    def tasks(self) -> list[Task]:
        """Every run once: a seed's long pre-trainings first, arms side by side."""
        order = sorted(
            self.cells, key=lambda c: (c.config.seed, -c.config.pretrain.epochs, c.config.arm)
        )
        pre = {c.pretrain_id: Task(PRETRAIN, c.pretrain_id, c.config) for c in order}
        post = [Task(CELL, c.run_id, c.config, c.pretrain_id) for c in order]
        return [*pre.values(), *post]

    def to_plain(self) -> dict[str, Any]:
        """What plan.json freezes."""
        configs = [c.config for c in self.cells]
        named = {"baseline": self.baseline} if self.baseline else {}
        endpoints = [endpoint(name) for name, _ in configs[0].tasks]
        return {
            "schema": 1,
            "preset": self.preset,
            "arms": list(dict.fromkeys(c.arm for c in configs)),
            "budgets": sorted({c.pretrain.epochs for c in configs}),
            "seeds": sorted({c.seed for c in configs}),
            **named,
            "target_epochs": self.target_epochs,
            "endpoint": endpoints[0],
            "secondary": endpoints[1:],
            "margin": self.margin,
            "alpha": self.alpha,
            "recipe": recipe_digest(configs[0]),
            "ids": self.ids,
        }


def make_study(
    resolver: Resolver, arms: Iterable[Arm], budgets: Sequence[int], seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """All cells of the grid arms x budgets x seeds.

    Raises:
        UsageError: if settings cannot go together.
    """
    cells: dict[str, Cell] = {}  # arms typed in two ways may be one
    for arm in arms:
        for epochs in budgets:
            sense.check(resolver.resolve(arm, epochs, seeds[0]))
            for seed in seeds:
                config = resolver.resolve(arm, epochs, seed)
                run_id = cell_id(config)
                cells[run_id] = Cell(config, run_id, pretrain_id(config))
    return tuple(cells.values())


def describe(config: RunConfig) -> dict[str, Any]:
    """What a dry run prints of one arm: effective batch, peak learning rate, warm-up."""
    pretrain = config.pretrain
    return {
        "arm": config.arm,
        "batch": pretrain.batch_size,
        "lr": peak_lr(pretrain),
        "warmup_epochs": warmup(pretrain),
        "warmup_share": warmup(pretrain) / pretrain.epochs,
        "task_lr": peak_lr(config.tasks[0][1]) if hasattr(config.tasks[0][1], "blr") else None,
    }


def plain_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, as stored in config.json, a task a section.

    ``own`` stands there only where an arm has settings of its own.
    """
    plain = {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    tasks: list[list[Any]] = plain.pop("tasks")
    if not config.own:
        del plain["own"]
    return {**plain, **dict(tasks)}
