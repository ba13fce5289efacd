"""``wandb``: a run of the project ``mto-bench``; offline unless WANDB_MODE says otherwise.

What was logged offline lies in the run's folder; ``wandb sync`` uploads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from bench.train.numbers import measured

PROJECT = "mto-bench"


class WandbSink:
    """Numbers by stage, each stage against its own steps; under the run's own id."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=folder.name,
            name=folder.name,
            dir=folder,
            config=dict(config),
            resume=None if os.environ["WANDB_MODE"] == "offline" else "allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )
        self.stages: set[str] = set()

    def log(self, values: Mapping[str, Any]) -> None:
        """Logs the numbers of one logged line at its step."""
        stage = str(values.get("stage", "run"))
        if stage not in self.stages:
            self.stages.add(stage)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self.run.log({**measured(values), f"{stage}/step": values.get("step")})

    def close(self) -> None:
        """Ends the run, for now."""
        self.run.finish()


def sink(folder: Path, config: Mapping[str, Any]) -> WandbSink:
    """The tracker of one run."""
    return WandbSink(folder, config)
