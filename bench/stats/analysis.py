"""What is compared, and what was fixed before results existed.

Units of the columns are in results/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

ENDPOINTS = {
    "finetune_top1": "fine-tune top-1",
    "probe_top1": "linear-probe top-1",
    "knn_top1": "k-NN top-1",
}

COSTS = {
    "pretrain_s": "wall time",
    "device_hours": "device-hours",
    "flops": "FLOPs",
    "images_seen": "images seen",
}

PER_EPOCH = {name: f"{name}_per_epoch" for name in COSTS}

RATES = ("images_per_s", "peak_memory_mib", "data_wait_share", "finetune_s")

SECTION = ["data", "model", "recipe"]

ARM = [*SECTION, "base_arm", "arm"]

CELL = [*ARM, "epochs", "seed"]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was fixed before results existed; the defaults where there is no plan.

    ``target_epochs`` None means the second largest budget of three or more, then the largest; with
    two budgets the largest first, since no epochs can be saved against the smallest.
    """

    target_epochs: int | None = None
    budgets: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()
    alpha: float = 0.05
    margin: float = 0.1
    endpoint: str = "finetune_top1"
    secondary: tuple[str, ...] = ("probe_top1", "knn_top1")
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

    def targets(self, budgets: Iterable[int]) -> list[int]:
        """Budgets whose baseline accuracy is a target, the primary one first.

        Args:
            budgets: those that were run; the plan's count before them.
        """
        known = sorted(set(self.budgets or budgets))
        main = known[-2:] if len(known) > 2 else known[::-1]
        if self.target_epochs is not None:
            main = [self.target_epochs]
        return main


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
