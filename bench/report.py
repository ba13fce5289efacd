"""The report: records in, tables out. A pure function of the run folders, plus atomic writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.aggregate import records as records_of
from bench.errors import unknown
from bench.reporting import markdown
from bench.reporting.study import Study, study
from bench.store import Record, write_bytes

FRAMES = ("accuracy", "differences", "targets", "costs")
Plan = Mapping[str, Any] | None


def summary(records: Iterable[Record], plan: Plan) -> str:
    """Markdown for the end of the main command: main table and a line a comparison.

    Raises:
        NothingMeasuredError: if no run has a score.
    """
    return markdown.summary_text(_study(records, plan))


def results(records: Iterable[Record], plan: Plan) -> dict[str, Any]:
    """The report as plain JSON values; numbers that do not exist are None."""
    return _plain(_study(records, plan))


def write_report(
    records: Iterable[Record], plan: Plan, out: Path, formats: Iterable[str]
) -> list[Path]:
    """Writes the report into ``out`` in each of ``formats``; returns the files.

    Raises:
        NothingMeasuredError: if no run has a score.
        UsageError: for an unknown format.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise unknown("report format", name, FORMATS)
    found = _study(records, plan)
    files = [file for name in wanted for file in FORMATS[name](found)]
    for name, data in files:
        write_bytes(out / name, data)
    return [out / name for name, _ in files]


def _study(records: Iterable[Record], plan: Plan) -> Study:
    return study((vars(record) for record in records), plan)


def _plain(found: Study) -> dict[str, Any]:
    frames = {name: _rows(getattr(found, name)) for name in FRAMES}
    return {
        "schema": 1,
        **frames,
        "warnings": found.warnings,
        "deviations": found.deviations,
        "missing": found.missing,
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{k: _value(v) for k, v in row.items()} for row in records_of(frame)]


def _value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _md(found: Study) -> list[tuple[str, bytes]]:
    return [("report.md", markdown.document(found).encode())]


def _json(found: Study) -> list[tuple[str, bytes]]:
    return [("report.json", (json.dumps(_plain(found), indent=1) + "\n").encode())]


def _csv(found: Study) -> list[tuple[str, bytes]]:
    return [(f"{name}.csv", getattr(found, name).to_csv(index=False).encode()) for name in FRAMES]


FORMATS: dict[str, Callable[[Study], list[tuple[str, bytes]]]] = {
    "md": _md,
    "csv": _csv,
    "json": _json,
}
