"""Results as a notebook reads them: frames, sentences, files."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench import library
from bench.errors import UsageError
from bench.report import html
from bench.report.sections import Findings
from bench.report.verdicts import NO_COMPARISON, verdicts
from bench.store import studies
from bench.store.archive import opened
from bench.store.store import Store
from bench.store.studies import PLAN, STUDIES, StudyFolder

FORMATS = ("md", "csv", "json", "html")


class Results:
    """What the records of a study say, read anew at each look.

    Units and columns of the frames are explained in results/README.md.
    """

    def __init__(self, store: Store, folder: StudyFolder) -> None:
        self.store, self.folder = store, folder

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    def findings(self) -> Findings:
        """Everything a report says.

        Raises:
            NothingMeasuredError: if no cell has finished.
        """
        return library.findings_of(self.store, self.folder)

    def results(self) -> pd.DataFrame:
        """One line a run: arm, epochs, seed, scores in per cent, times, id."""
        return self.findings().runs

    @property
    def accuracy(self) -> pd.DataFrame:
        """Mean and sd over seeds, by arm, budget and endpoint."""
        return self.findings().accuracy

    @property
    def differences(self) -> pd.DataFrame:
        """Paired differences of variants to their baselines at equal budgets, with intervals."""
        return self.findings().differences

    @property
    def targets(self) -> pd.DataFrame:
        """Epochs to the baseline's accuracy, ρ with its interval, the words of the verdict."""
        return self.findings().targets

    @property
    def costs(self) -> pd.DataFrame:
        """Cost of one pre-training epoch, by arm."""
        return self.findings().costs

    def verdict(self) -> str:
        """A line a variant: the word (shown, refuted, open, not measurable) and its sentence."""
        found = [v for section in self.findings().sections for v in verdicts(section)]
        return "\n".join(f"{v.word}: {v.text}" for v in found) or NO_COMPARISON

    def report(
        self, to: str | Path = "", formats: str | list[str] | tuple[str, ...] = FORMATS
    ) -> list[Path]:
        """Writes tables and pages into a folder, by default the study's own; the files."""
        wanted = formats.replace(",", " ").split() if isinstance(formats, str) else formats
        place = Path(os.path.expanduser(to)) if to else self.folder.path
        return library.report(self.findings(), place, wanted, self.store)

    def _repr_html_(self) -> str:
        return html.brief(self.findings())

    def __repr__(self) -> str:
        kind = type(self).__name__.removeprefix("_")
        return f"{kind}('{self.name}' in '{self._place()}')"

    def _place(self) -> Path:
        return self.store.root


class _Unpacked(Results):
    """Results of an archive, unpacked for as long as they are held."""

    def __init__(self, archive: Path, study: str) -> None:
        place = Path(tempfile.mkdtemp(prefix="mto-bench-"))
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        super().__init__(*opened(place, archive, study))
        self._archive = archive

    def _place(self) -> Path:
        return self._archive

    @cached_property
    def _found(self) -> Findings:
        return super().findings()

    def findings(self) -> Findings:
        """Everything a report says; an archive does not change."""
        return self._found

    def report(
        self, to: str | Path = "", formats: str | list[str] | tuple[str, ...] = FORMATS
    ) -> list[Path]:
        """Writes tables and pages into a folder, by default beside the archive; the files."""
        return super().report(to or self._archive.parent / self.name, formats)


def open_results(path: str | Path = "results", study: str = "") -> Results:
    """The results in a results folder, a study's folder or an exported archive.

    Args:
        path: such a folder, or the file that ``export`` wrote.
        study: which study of several; by default the newest.

    Raises:
        UsageError: if there is nothing of the kind.
        NothingMeasuredError: for a folder without studies.
    """
    place = Path(os.path.expanduser(path))
    if place.is_file():
        return _Unpacked(place, study)
    if (place / PLAN).is_file() and place.absolute().parent.name == STUDIES:
        store = Store(place.absolute().parents[1])
        return Results(store, studies.find(store, place.absolute().name))
    if not place.is_dir():
        raise UsageError(f"'{path}' does not exist. Give a results folder or an exported archive.")
    store = Store(place)
    return Results(store, studies.find(store, study))
