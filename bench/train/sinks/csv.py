"""``csv``: what a run logs as one long table, ``metrics.csv``: stage, epoch, step, name, value."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.train.numbers import flat

HEAD = ("stage", "epoch", "step", "name", "value")


class CsvSink:
    """Appends a line a number; lists count their items, mappings name theirs."""

    def __init__(self, folder: Path) -> None:
        path = folder / "metrics.csv"
        fresh = not path.exists()
        self.file = path.open("a", newline="")
        self.writer = csv.writer(self.file)
        if fresh:
            self.writer.writerow(HEAD)

    def log(self, values: Mapping[str, Any]) -> None:
        """Appends the numbers of one logged line."""
        where = [values.get(name, "") for name in HEAD[:3]]
        self.writer.writerows([*where, *pair] for pair in flat(values) if pair[0] not in HEAD)
        self.file.flush()

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def sink(folder: Path, config: Mapping[str, Any]) -> CsvSink:
    """The tracker of one run."""
    return CsvSink(folder)
