"""The folder that holds runs and studies."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError
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

    def check_writable(self) -> None:
        """Makes the folder and proves that it can be written.

        Raises:
            UsageError: if it cannot.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.runs):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot write to output folder '{self.root}' ({error.strerror}). "
                "Choose another one with --out DIR."
            ) from error

    def records(self, ids: list[str] | None = None) -> list[Record]:
        """Records of finished or failed cells (all of them, or those named)."""
        folders = self.folders() if ids is None else [self.run(i) for i in ids]
        found = (load_record(f) for f in folders)
        return [r for r in found if r is not None]
