"""``compare``: two studies cell by cell."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import library
from bench.commands.flags import add_out_flag
from bench.errors import UsageError, shown
from bench.report import write
from bench.store import studies
from bench.store.archive import opened
from bench.store.files import read_json
from bench.store.shapes import clean, fits
from bench.store.store import Store
from bench.store.studies import StudyFolder

PLACE = {"data": str, "model": str, "arm": str, "endpoint": str}
NUMBER = float | None
REPORT: Mapping[str, Mapping[str, Any]] = {
    "accuracy": {**PLACE, "epochs": int, "mean": NUMBER, "sd": NUMBER, "n_ok": int},
    "targets": {**PLACE, "target_epochs": int, "rho_words": str | None, "verdict": str | None},
}
"""Columns of a report.json that are read."""


def show_compare(args: argparse.Namespace) -> int:
    """Prints two studies cell by cell; each is a name, a folder, an archive or a report.json."""
    with tempfile.TemporaryDirectory() as place:
        sides = [
            _side(name, Path(args.out), Path(place) / str(i))
            for i, name in enumerate((args.a, args.b))
        ]
        names = _called(args.a), _called(args.b)
        if len(set(names)) == 1:  # one study's name in two folders
            names = str(Path(args.a)), str(Path(args.b))
        print(write.compare(sides[0], sides[1], names))
    return 0


def _side(name: str, out: Path, place: Path) -> write.Side:
    """What a study's records say, or the values of a report.json."""
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        values = read_json(path) or {}
        for frame, columns in REPORT.items():
            rows: Any = values.get(frame)
            if not fits(rows, list[dict[str, Any]]) or not all(_has(row, columns) for row in rows):
                raise UsageError(
                    f"'{shown(name)}' is no report.json: its '{frame}' cannot be read."
                )
        cleaned: dict[str, Any] = clean(values)
        return cleaned
    if path.is_file():
        _, folder = opened(place, path)
    elif path.is_dir() and ((path / studies.PLAN).is_file() or not _is_study(Store(out), name)):
        folder = StudyFolder(path.absolute())
    else:
        folder = studies.find(Store(out), name)
    if folder.plan() is None:
        raise UsageError(
            f"'{folder.path}' holds no plan.json, so it is no study. Name one of a "
            f"results folder, as {name}/{studies.STUDIES}/STUDY."
        )
    return library.findings_of(Store(folder.path.parent.parent), folder)


def _is_study(store: Store, name: str) -> bool:
    return name in {folder.name for folder in studies.planned(store)}


def _has(row: dict[str, Any], columns: Mapping[str, Any]) -> bool:
    return all(name in row and fits(row[name], hint) for name, hint in columns.items())


def _called(name: str) -> str:
    """What a side is called: its folder for a report.json, else its own name."""
    path = Path(name)
    called = path.resolve().parent.name if path.name == "report.json" else path.name
    return called.removesuffix(".tar.gz")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``compare`` takes."""
    add_out_flag(parser)
    parser.add_argument("a", help="study: name, folder, archive or report.json")
    parser.add_argument("b", help="study: name, folder, archive or report.json")
