"""The end of a study: tables printed and saved, gates checked, the exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import library
from bench.commands.streams import say
from bench.errors import GateError, UsageError, few
from bench.report import write
from bench.report.sections import Findings
from bench.store.files import write_bytes
from bench.store.store import Store
from bench.store.studies import StudyFolder

TABLES = ("md", "csv", "json")

REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What the system says of a folder that may be read alone."""

RESULT = ("<!-- result -->\n", "<!-- /result -->\n")
"""Lines in a markdown file between which ``report --readme`` puts the printed table.

The first of a place for one study alone is ``<!-- result NAME -->``.
"""


@dataclass(frozen=True, kw_only=True)
class Saying:
    """What is said of a result, and how strictly: formats of files, JSON, gates."""

    formats: Sequence[str] = TABLES
    json: bool = False
    strict: bool = False
    gates: Sequence[str] = field(default_factory=list)
    allow_pilot: bool = False
    readme: str = ""


def publish(store: Store, folder: StudyFolder, saying: Saying, target: Path | None = None) -> int:
    """Prints and saves a study's report, checks its gates; returns the exit code.

    The files go to ``target``, by default the study's own folder.

    Raises:
        NothingMeasuredError: if no cell has finished.
        GateError: if a gate does not hold (the report is written all the same).
        UsageError: if ``saying.readme`` has no place for the result; nothing is written then.
    """
    if saying.readme:
        parts_of(Path(saying.readme), folder.path.name)
    for expression in saying.gates:
        write.check_gate(expression)
    findings = library.findings_of(store, folder)
    target = target or folder.path
    try:
        paths = library.report(findings, target, saying.formats, store)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise UsageError(
            f"cannot write tables to '{target}' ({error.strerror}). "
            "Name another folder: report STUDY --to DIR."
        ) from error
    values = write.results(findings) if saying.json or saying.gates else {}
    say(json.dumps(values, indent=1) if saying.json else write.summary(findings))
    shown = ", ".join(sorted({p.name for p in paths if p.parent == target}))
    print(f"saved in {target}: {shown}", file=sys.stderr)
    if saying.readme:
        readme = Path(saying.readme)
        figures = Path(os.path.relpath(target / "figures", readme.parent)).as_posix()
        block = write.readme_block(findings, figures)
        put_result(readme, block, folder.path.name)
    _gates(saying, values)
    return _verdict(findings, saying.strict)


def _gates(saying: Saying, values: dict[str, Any]) -> None:
    failed = []
    for expression in saying.gates:
        try:
            print(f"gate {write.gate(expression, values, saying.allow_pilot)}", file=sys.stderr)
        except GateError as error:
            failed.append(str(error))
    if failed:
        raise GateError(" ".join(failed))


def _verdict(findings: Findings, strict: bool) -> int:
    if strict:
        faults = write.shortcomings(findings)
        for fault in faults:
            print(f"strict: {fault}", file=sys.stderr)
        return int(bool(faults) or not findings.complete)
    runs = findings.runs
    if broken := list(runs.loc[runs["failure"] == "nan", "run_id"]):
        said = f"{len(broken)} cell(s) failed, their score is no number: {few(broken)}"
        print(said, file=sys.stderr)
    return int(bool(broken) or not findings.complete)


def put_result(path: Path, summary: str, study: str = "") -> None:
    """Puts a study's result into its place in a markdown file, between the lines :data:`RESULT`.

    Raises:
        UsageError: if the file cannot be read or has no place for it.
    """
    before, after = parts_of(path, study)
    text = f"{before}{summary.strip()}\n{after}"
    found = path.read_bytes()
    ends = "\r\n" if 2 * found.count(b"\r\n") > found.count(b"\n") else "\n"
    write_bytes(path.resolve(), text.replace("\n", ends).encode())


def parts_of(path: Path, study: str = "") -> tuple[str, str]:
    """What stands before and after the place of a study's result: its own, else the unnamed one.

    Raises:
        UsageError: as :func:`put_result`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is no UTF-8 text. Save it as such.") from error
    text += "" if text.endswith("\n") else "\n"
    own = f"<!-- result {study} -->\n"
    opening = own if own in text else RESULT[0]
    before, opened, rest = text.partition(opening)
    inside, closed, after = rest.partition(RESULT[1])
    if not opened or not closed or "<!-- result" in inside:
        names = " and ".join(line.strip() for line in (opening, RESULT[1]))
        raise UsageError(f"'{path}' lacks the lines {names}, between which the result goes.")
    return before + opening, RESULT[1] + after
