"""The folder that holds runs and studies."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError, unknown
from bench.plan.study import Task, plain_config
from bench.store.files import write_json
from bench.store.folder import RunFolder
from bench.store.record import Record, load_record


@dataclass(frozen=True)
class Store:
    """The folder that holds runs and reports."""

    root: Path

    @property
    def runs(self) -> Path:
        """Folder of run folders."""
        return self.root / "runs"

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run, whether it exists or not."""
        return RunFolder(self.runs / run_id)

    def folders(self) -> list[RunFolder]:
        """All run folders, by name."""
        if not self.runs.is_dir():
            return []
        return [RunFolder(p) for p in sorted(self.runs.iterdir()) if p.is_dir()]

    def register(self, task: Task) -> None:
        """Writes a run's resolved configuration into its folder, if it is not there yet."""
        folder = self.run(task.run_id)
        if folder.config() is None:
            identity = {"stage": task.stage, "run_id": task.run_id, "parent": task.parent}
            values = {"schema": 1, **identity, "config": plain_config(task.config)}
            write_json(folder.path / "config.json", values)

    def find(self, name: str, kind: str = "run") -> RunFolder:
        """The run of this id, or of the one that begins so; an error names what was wanted.

        Raises:
            UsageError: if there is none, or more than one.
        """
        ids = [f.run_id for f in self.folders()]
        found = [i for i in ids if i == name] or [i for i in ids if i.startswith(name)]
        if len(found) != 1:
            raise unknown(kind, name, found[:8] or ids[:8], "Give enough of the id to be unique.")
        return self.run(found[0])

    def pretraining(self, name: str, kind: str = "run") -> RunFolder:
        """The pre-training run of this id, or that of a cell, found as :meth:`find` does.

        Raises:
            UsageError: if there is none, or more than one.
        """
        folder = self.find(name, kind)
        parent = (folder.config() or {}).get("parent")
        return self.run(parent) if parent else folder

    def check_place(self) -> None:
        """That the folder is there or could be made, without making it.

        Raises:
            UsageError: if it is no folder, or not to be written.
        """
        there = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise self._not_writable(f"'{there}' is no folder that can be written")

    def check_writable(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            UsageError: if it cannot.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.runs):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self._not_writable(str(reason)) from error

    def _not_writable(self, reason: str) -> UsageError:
        return UsageError(
            f"cannot write to output folder '{self.root}' ({reason}). "
            "Choose another one with --out DIR."
        )

    def records(self, ids: list[str] | None = None) -> list[Record]:
        """Records of finished cells (all of them, or those named)."""
        folders = self.folders() if ids is None else [self.run(i) for i in ids]
        found = (load_record(f) for f in folders)
        return [r for r in found if r is not None]
