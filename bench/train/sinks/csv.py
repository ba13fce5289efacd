"""``csv``: what a run logs as one long table, ``metrics.csv``: stage, epoch, step, name, value."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
        for name, value in values.items():
            if name not in HEAD:
                self.writer.writerows([*where, *pair] for pair in _flat(name, value))
        self.file.flush()

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _flat(f"{name}.{index}", inner)
    else:
        yield name, value


def sink(folder: Path, config: Mapping[str, Any]) -> CsvSink:
    """The tracker of one run."""
    return CsvSink(folder)
