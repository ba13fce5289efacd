"""The trackers of a run: opened by name; one that fails costs a warning, never the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import registry
from bench.api import Sink

log = logging.getLogger(__name__)


class Trackers:
    """What a run logs goes to each of them."""

    def __init__(self, names: Iterable[str], folder: Path, config: Mapping[str, Any]) -> None:
        self.sinks: dict[str, Sink] = {}
        for name in names:
            self._try(name, lambda n=name: self._open(n, folder, config))

    def _open(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.sinks[name] = registry.SINKS.load(name)(folder, config)

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
        except Exception as error:  # whatever a tracker's own library may raise
            log.warning("tracker '%s' is left out: %s", name, error)
            self.sinks.pop(name, None)
