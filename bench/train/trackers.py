"""The trackers of a run: opened by name; one that fails costs a warning, never the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import registry
from bench.api import Sink
from bench.errors import UsageError

log = logging.getLogger(__name__)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """Trackers by name, before anything runs.

    Raises:
        UsageError: for an unknown one, or one whose package is not installed.
    """
    known = tuple(names)
    for name in known:
        needs = registry.TRACKERS.row(name).needs
        if needs and find_spec(needs) is None:
            raise UsageError(
                f"tracker '{name}' needs the package '{needs}', which is not installed: "
                f"pip install 'mto-bench[{name}]'."
            )
    return known


def result_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a cell's record as the last line that trackers receive, at its epochs."""
    epochs = record["epochs"]
    return {"stage": "result", "epoch": epochs, "step": epochs, **record["scores"]}


class Trackers:
    """What a run logs goes to each of them."""

    def __init__(self, names: Iterable[str], folder: Path, config: Mapping[str, Any]) -> None:
        self.sinks: dict[str, Sink] = {}
        for name in names:
            self._try(name, lambda n=name: self._open(n, folder, config))

    def _open(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.sinks[name] = registry.TRACKERS.load(name)(folder, config)

    def log(self, values: Mapping[str, Any]) -> None:
        """Hands one logged line to every tracker."""
        for name, sink in list(self.sinks.items()):
            self._try(name, lambda s=sink: s.log(values))

    def close(self) -> None:
        """Tells every tracker that the run has ended."""
        for name, sink in list(self.sinks.items()):
            self._try(name, sink.close)

    def _try(self, name: str, call: Any) -> None:
        """Leaves out a tracker from its first failure on: the run folder stays the truth."""
        try:
            call()
        except (Exception, SystemExit) as error:  # whatever a tracker's own library may raise
            log.warning("tracker '%s' is left out: %s", name, error)
            self.sinks.pop(name, None)
