"""Scores kept beside the encoder they are of, so that one changed task computes one task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.api.rules import hints
from bench.errors import DamagedError
from bench.store.files import set_aside, write_json
from bench.store.folder import RunFolder
from bench.store.shapes import read_state

NEEDED = ("top1", "seconds", "commit", "dirty")


@dataclass(frozen=True, kw_only=True)
class KeptScore:
    """Top-1 in per cent, seconds of training if there was any, and the code that computed it.

    ``correct``: which test images were named rightly, by draw of labels; older scores have none.
    """

    top1: float
    seconds: float | None
    commit: str
    dirty: bool
    correct: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class KeptScores:
    """The scores in a pre-training's folder: ``scores/<task>-<key>.json``."""

    folder: RunFolder

    def read(self, task: str, key: str) -> KeptScore | None:
        """The score of a task under the key of its recipe, or None; one damaged is set aside."""
        path = self._path(task, key)
        try:
            values = read_state(path, hints(KeptScore), NEEDED)
            return None if values is None else KeptScore(**values)
        except (DamagedError, TypeError):
            set_aside(path)
            return None

    def write(self, task: str, key: str, score: KeptScore) -> None:
        """Keeps a score, unless the encoder's run is gone."""
        if self.folder.path.is_dir():
            write_json(self._path(task, key), asdict(score))

    def _path(self, task: str, key: str) -> Path:
        return self.folder.path / "scores" / f"{task}-{key}.json"
