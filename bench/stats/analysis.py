"""What is compared, and what was fixed before results existed.

Units of the columns are in results/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from bench import registry

PRIMARY = next(iter(registry.TASKS.rows))
"""The task whose accuracy a study is about unless its plan names another."""

COSTS = {
    "pretrain_s": "wall time",
    "device_hours": "device-hours",
    "flops": "FLOPs",
    "images_seen": "images seen",
}

PER_EPOCH = {name: f"{name}_per_epoch" for name in COSTS}

RATES = ("images_per_s", "peak_memory_mib", "data_wait_share", f"{PRIMARY}_s")

SECTION = ["data", "model", "recipe"]

ARM = [*SECTION, "base_arm", "arm"]

CELL = [*ARM, "epochs", "seed"]


def endpoint_label(endpoint: str) -> str:
    """An endpoint as tables call it."""
    return f"{registry.label(endpoint.removesuffix('_top1'))} top-1"


def endpoints_of(frame: pd.DataFrame) -> list[str]:
    """The columns that hold accuracies."""
    return [str(name) for name in frame.columns if str(name).endswith("_top1")]


def measured_endpoints(runs: pd.DataFrame) -> list[str]:
    """The endpoints of which some run has a score."""
    return [name for name in endpoints_of(runs) if runs[name].notna().any()]


def _others(primary: str) -> tuple[str, ...]:
    return tuple(registry.endpoint(name) for name in registry.TASKS.ordered() if name != primary)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was fixed before results existed; the defaults where there is no plan.

    ``target_epochs`` None means the second largest budget of three or more; with two budgets the
    largest, since no epochs can be saved against the smallest.
    ``baseline`` is the arm that every other one is compared with; empty for each arm's own.
    """

    target_epochs: int | None = None
    budgets: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()
    baseline: str = ""
    alpha: float = 0.05
    margin: float = 0.1
    endpoint: str = registry.endpoint(PRIMARY)
    secondary: tuple[str, ...] = field(default_factory=lambda: _others(PRIMARY))
    ids: tuple[str, ...] = ()
    recipe: str = ""
    warnings: tuple[str, ...] = ()
    planned: bool = False

    @staticmethod
    def of(plan: Mapping[str, Any] | None) -> Analysis:
        """The analysis that plan.json fixes; keys that are not about the analysis are skipped."""
        if plan is None:
            return Analysis()
        known = {f.name for f in fields(Analysis)} - {"planned"}
        given = {k: v for k, v in plan.items() if k in known and v is not None}
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
        }
        return Analysis(**values, planned=True)

    @property
    def endpoints(self) -> list[str]:
        """The primary endpoint, then the secondary ones."""
        return [self.endpoint, *(e for e in self.secondary if e != self.endpoint)]

    def with_measured(self, endpoints: Iterable[str]) -> Analysis:
        """The same with endpoints that were measured beside the planned ones, after them."""
        more = [e for e in endpoints if e not in self.endpoints]
        return replace(self, secondary=(*self.secondary, *more))

    def targets(self, budgets: Iterable[int]) -> list[int]:
        """Budgets whose baseline accuracy is a target: the primary one, then the largest.

        Args:
            budgets: those that were run; the plan's count before them.
        """
        known = sorted(set(self.budgets or budgets))
        main = known[-2:] if len(known) > 2 else known[::-1]
        if self.target_epochs is not None:
            main = [self.target_epochs, *known[-1:]]
        return list(dict.fromkeys(main))


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
