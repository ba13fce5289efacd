"""``tensorboard``: event files in the run's folder; ``tensorboard --logdir results/runs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from bench.train.numbers import measured


class TensorBoardSink:
    """A scalar a number, by stage; the settings as text."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        settings = json.dumps(config, indent=1)
        self.writer.add_text("config", f"```json\n{settings}\n```")

    def log(self, values: Mapping[str, Any]) -> None:
        """Writes the numbers of one logged line at its step."""
        for name, value in measured(values).items():
            self.writer.add_scalar(name, value, values.get("step"))
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()


def sink(folder: Path, config: Mapping[str, Any]) -> TensorBoardSink:
    """The tracker of one run."""
    return TensorBoardSink(folder, config)
