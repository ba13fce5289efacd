"""The report: records in, tables and plots out. A pure function of the run folders.

Units and columns are explained in results/README.md, the statistics in docs/statistics.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import unknown
from bench.plan.study import Study
from bench.report import advice, contrast, gates, html, latex, markdown, plots, terminal
from bench.report import draw as figures
from bench.report.draw import Plot
from bench.report.sections import Findings, Folders, Key, find
from bench.report.verdicts import verdicts
from bench.stats.analysis import SECTION, rows_of
from bench.store.correct import read_correct
from bench.store.files import read_json, write_bytes, write_json
from bench.store.record import Record
from bench.store.store import Store

SCHEMA = 1
"""Version of report.json."""

FRAMES = ("accuracy", "differences", "targets", "costs")
"""Frames of a study that become CSV files and lists in report.json."""

FORMATS = ("md", "csv", "json", "tex", "html", "png", "svg")

SEEDS = (3, 5, 8, 10)
"""How many seeds ``power`` speaks of, whatever a study has."""

Plan = Mapping[str, Any] | None
Plots = dict[Key, list[Plot]]
Side = Findings | Mapping[str, Any]


def summary(findings: Findings) -> str:
    """What the main command prints at its end: the verdicts and a table within 80 columns."""
    return terminal.text(findings)


def results(findings: Findings) -> dict[str, Any]:
    """The report as plain JSON values; numbers that do not exist are None."""
    return _plain(findings)


def readme_block(findings: Findings, figures: str) -> str:
    """Markdown for a README: the verdicts, the forest plot in the folder ``figures``, its facts."""
    return markdown.block(findings, _links(_plots(findings, None), figures))


def shortcomings(findings: Findings) -> list[str]:
    """Why a strict report refuses: missing, failed and ambiguous cells, mixtures, deviations."""
    return [text for _, texts in findings.remarks for text in texts]


def gate(expression: str, values: Mapping[str, Any], allow_pilot: bool = False) -> str:
    """Checks one ``--assert`` gate, such as ``rho_low(ARM)>1.5``, against :func:`results`.

    Args:
        expression: the gate.
        values: a report as :func:`results` gives it.
        allow_pilot: whether fewer than five seeds may carry it.

    Returns:
        What was found.

    Raises:
        GateError: if it does not hold, was not measured, or nothing may be claimed of it.
        UsageError: if it is not a gate.
    """
    return gates.check(expression, values, allow_pilot)


def check_gate(expression: str, study: Study | None = None, standing: Plan = None) -> None:
    """Refuses what is no gate, or one on what ``study`` will not measure, before it is computed.

    ``standing`` is the plan of an earlier command of this study, whose budgets and target count.

    Raises:
        UsageError: naming what is wrong.
    """
    if study is None:
        gates.parse(expression)
    else:
        gates.foresee(expression, study, standing)


def compare(a: Side, b: Side, names: tuple[str, str] = ("A", "B")) -> str:
    """Markdown: two studies cell by cell, and what differs between them beside the numbers.

    A side is what a study says, or the values of a report.json; with one of the last the seeds are
    not known and nothing is paired.
    """
    if isinstance(a, Findings) and isinstance(b, Findings):
        return contrast.text(a, b, names)
    values = [_plain(side) if isinstance(side, Findings) else side for side in (a, b)]
    return contrast.brief(values[0], values[1], names)


def power(findings: Findings, seeds: Iterable[int] | None = None) -> str:
    """Markdown: from the spread of these runs, what n seeds would resolve and what they cost.

    Without ``seeds`` these are :data:`SEEDS` and, where a study has as many, its own and twice
    those: some are always more than it has.
    """
    return advice.text(findings, _advised(findings) if seeds is None else list(seeds))


def _advised(findings: Findings) -> list[int]:
    own = 0 if findings.differences.empty else int(findings.differences["pairs"].max())
    return sorted({*SEEDS, *([own, 2 * own] if own >= SEEDS[-1] else [])})


def write_report(
    findings: Findings,
    out: Path,
    formats: Iterable[str],
    store: Store | None = None,
) -> list[Path]:
    """Writes the report into ``out`` in each of :data:`FORMATS` asked for; returns the files.

    Args:
        findings: what the records of a study say.
        out: folder for the files.
        formats: names from :data:`FORMATS`.
        store: where the logs of the runs are; without it there are no plots from logs.

    Raises:
        UsageError: for an unknown format.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise unknown("report format", name, FORMATS)
    drawn = [name for name in ("png", "svg") if name in wanted]
    shown = _plots(findings, store) if drawn or "html" in wanted else {}
    pictures = _draw(shown, out / "figures", drawn) if drawn else []
    linked = shown if "png" in drawn else {}
    files = [
        (out / name, text.encode())
        for form, write in WRITERS.items()
        if form in wanted
        for name, text in write(findings, linked if form == "md" else shown).items()
    ]
    for path, data in files:
        write_bytes(path, data)
    return [path for path, _ in files] + pictures


def prepare(records: Iterable[Record], plan: Plan = None, store: Store | None = None) -> Findings:
    """What the records of a study say, in any order; ``plan`` are the values of plan.json.

    With the runs' ``store`` at hand it knows their settings and which test images they got right.

    Raises:
        NothingMeasuredError: if no run has a score.
    """
    return find((vars(record) for record in records), plan, None if store is None else _of(store))


def _of(store: Store) -> Folders:
    return Folders(
        correct=cache(lambda run_id: read_correct(store.run(run_id))),
        settings=lambda run_id: (store.run(run_id).config() or {}).get("config", {}),
    )


def _plots(found: Findings, store: Store | None) -> Plots:
    logs = None if store is None else lambda run_id: store.run(run_id).metrics()
    return {part.key: plots.section_plots(part, logs) for part in found.sections}


def _draw(shown: Plots, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draws what has changed since the last report; the fingerprints are kept beside the plots."""
    memory = folder / ".drawn.json"
    known = read_json(memory) or {}
    drawn: dict[str, str] = {}
    paths: list[Path] = []
    for plot in (plot for section in shown.values() for plot in section):
        fingerprint = figures.fingerprint(plot)
        files = {name: folder / f"{plot.name}.{name}" for name in formats}
        old = [f for f in files if known.get(files[f].name) != fingerprint or not files[f].exists()]
        for name, data in figures.draw(plot, old).items() if old else ():
            write_bytes(files[name], data)
        drawn |= {path.name: fingerprint for path in files.values()}
        paths += files.values()
    if {**known, **drawn} != known:
        write_json(memory, {**known, **drawn})
    return paths


# --- formats ----------------------------------------------------------------------------------


def _md(found: Findings, shown: Plots) -> dict[str, str]:
    return {"report.md": markdown.document(found, _links(shown, "figures"))}


def _links(shown: Plots, folder: str) -> markdown.Links:
    return {key: [(p, f"{folder}/{p.name}.png") for p in found] for key, found in shown.items()}


def _csv(found: Findings, shown: Plots) -> dict[str, str]:
    return {
        f"{name}.csv": getattr(found, name).to_csv(index=False, float_format="%.10g")
        for name in FRAMES
    }


def _json(found: Findings, shown: Plots) -> dict[str, str]:
    return {"report.json": json.dumps(_plain(found), indent=1) + "\n"}


def _tex(found: Findings, shown: Plots) -> dict[str, str]:
    return {"report.tex": latex.document(found)}


def _html(found: Findings, shown: Plots) -> dict[str, str]:
    return {"report.html": html.document(found, shown)}


WRITERS: dict[str, Callable[[Findings, Plots], dict[str, str]]] = {
    "md": _md,
    "csv": _csv,
    "json": _json,
    "tex": _tex,
    "html": _html,
}


def _plain(found: Findings) -> dict[str, Any]:
    frames = {name: _rows(getattr(found, name)) for name in FRAMES}
    remarks = {head.split()[0].lower(): texts for head, texts in found.remarks}
    answers = [
        {**dict(zip(SECTION, section.key, strict=True)), **vars(verdict)}
        for section in found.sections
        for verdict in verdicts(section)
    ]
    head = {"schema": SCHEMA, "verdicts": answers, "endpoint": found.analysis.endpoint}
    return {**head, **frames, **remarks}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{k: _value(v) for k, v in row.items()} for row in rows_of(frame)]


def _value(value: Any) -> Any:
    """JSON has no NaN; ten digits are enough and the same on every machine."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.10g}") if math.isfinite(value) else None
