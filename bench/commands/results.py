"""Reading results: report, compare, power, and the end of the main command."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.errors import BenchError, GateError, NothingMeasuredError, UsageError, unknown
from bench.report import write as report
from bench.store.archive import unpack
from bench.store.collect import collect
from bench.store.files import read_json, write_bytes
from bench.store.record import Record
from bench.store.states import DONE
from bench.store.store import Store

FORMATS = ("md", "csv", "json", "html", "png", "svg")
TABLES = ("md", "csv", "json")


RESULT = ("<!-- result -->\n", "<!-- /result -->\n")
"""Lines in a markdown file between which ``report --readme`` puts the printed table."""


def publish(
    store: Store,
    folder: Path,
    args: argparse.Namespace,
    formats: tuple[str, ...],
    target: Path | None = None,
) -> int:
    """Prints and saves a study's report, checks its gates; returns the exit code.

    The files go to ``target``, by default the study's own ``folder``.

    Raises:
        NothingMeasuredError: if no cell has finished.
        GateError: if a gate does not hold (the report is written all the same).
    """
    plan = read_json(folder / "plan.json")
    ids = None if plan is None else plan["ids"]
    records = collect(store, ids)
    if not any(r.status == DONE for r in records):
        raise NothingMeasuredError(f"no cell of '{folder.name}' has finished: there is no table.")
    study = report.prepare(records, plan)
    target = target or folder
    paths = report.write_report(study, plan, target, formats, store)
    values = report.results(study, plan) if args.json or args.gates else {}
    print(json.dumps(values, indent=1) if args.json else report.summary(study, plan))
    shown = ", ".join(sorted({p.name for p in paths if p.parent == target}))
    print(f"saved in {target}: {shown}", file=sys.stderr)
    if getattr(args, "readme", ""):
        readme = Path(args.readme)
        figures = os.path.relpath(target / "figures", readme.parent)
        put_result(readme, report.readme_block(study, plan, Path(figures).as_posix()))
    _gates(args, values)
    return _verdict(records, plan, args.strict)


def _gates(args: argparse.Namespace, values: dict[str, Any]) -> None:
    failed = []
    for expression in args.gates:
        try:
            print(f"gate {report.gate(expression, values, args.allow_pilot)}", file=sys.stderr)
        except GateError as error:
            failed.append(str(error))
    if failed:
        raise GateError(" ".join(failed))


def _verdict(records: list[Record], plan: dict[str, Any] | None, strict: bool) -> int:
    done = {r.run_id for r in records if r.status == DONE}
    wanted = {r.run_id for r in records} if plan is None else set(plan["ids"])
    if strict:
        faults = report.shortcomings(records, plan)
        for fault in faults:
            print(f"strict: {fault}", file=sys.stderr)
        return int(bool(faults) or done != wanted)
    return int(done != wanted)


def study_folder(store: Store, name: str) -> Path:
    """The folder of a study by name, or of the newest one.

    Raises:
        BenchError: if there is none of that name, or none at all.
    """
    plans = sorted((store.root / "studies").glob("*/plan.json"), key=lambda p: p.stat().st_mtime)
    names = [p.parent.name for p in plans]
    if name and name not in names:
        raise unknown("study", name, names)
    if not names:
        raise NothingMeasuredError(f"no studies in '{store.root / 'studies'}'.")
    return store.root / "studies" / (name or names[-1])


def put_result(path: Path, summary: str) -> None:
    """Puts a result between the lines :data:`RESULT` of a markdown file.

    Raises:
        UsageError: if the file cannot be read or lacks the two lines.
    """
    before, after = _parts(path)
    text = f"{before}{RESULT[0]}{summary.strip()}\n{RESULT[1]}{after}"
    write_bytes(path, text.encode())


def _parts(path: Path) -> tuple[str, str]:
    """What stands before and after the result of a markdown file."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}.") from error
    before, opened, rest = text.partition(RESULT[0])
    _, closed, after = rest.partition(RESULT[1])
    if not opened or not closed:
        names = " and ".join(line.strip() for line in RESULT)
        raise UsageError(f"'{path}' lacks the lines {names}, between which the result goes.")
    return before, after


def show_report(args: argparse.Namespace) -> int:
    """Rebuilds a study's tables and plots, from its run folders or from an archive of them."""
    target = Path(args.to) if args.to else None
    if args.readme:
        _parts(Path(args.readme))
    if args.archive and args.all:
        raise UsageError("--archive holds one study; leave out --all.")
    if args.archive:
        with tempfile.TemporaryDirectory() as place:
            store = Store(Path(place))
            unpack(store, Path(args.archive))
            folder = study_folder(store, args.study)
            into = target or Path(args.archive).parent / folder.name
            return publish(store, folder, args, tuple(args.format), into)
    store = Store(Path(args.out))
    folder = store.root / "studies" / "all" if args.all else study_folder(store, args.study)
    return publish(store, folder, args, tuple(args.format), target)


def show_compare(args: argparse.Namespace) -> int:
    """Prints two studies cell by cell; each is a name, a folder, an archive or a report.json."""
    with tempfile.TemporaryDirectory() as place:
        a, b = (_side(args, name, Path(place) / str(i)) for i, name in enumerate((args.a, args.b)))
        names = (_called(args.a), _called(args.b))
        print(report.compare(a, b, names))
    return 0


def _side(args: argparse.Namespace, name: str, place: Path) -> report.Side:
    """A study's records and plan, or the values of a report.json."""
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        values = read_json(path)
        if values is None or "accuracy" not in values:
            raise BenchError(f"'{name}' is no report.json.")
        return values
    if path.is_file():
        unpack(Store(place), path)
        folder = study_folder(Store(place), "")
    else:
        folder = path if path.is_dir() else study_folder(Store(Path(args.out)), name)
    plan = read_json(folder / "plan.json")
    if plan is None:
        raise BenchError(f"'{folder}' holds no plan.json, so it is no study.")
    return report.prepare(collect(Store(folder.parent.parent), plan["ids"]), plan)


def _called(name: str) -> str:
    """What a side is called: its folder for a report.json, else its own name."""
    path = Path(name)
    called = path.resolve().parent.name if path.name == "report.json" else path.name
    return called.removesuffix(".tar.gz")


def show_power(args: argparse.Namespace) -> int:
    """Prints what more seeds would resolve, and what they would cost.

    Raises:
        NothingMeasuredError: if no study has a result.
    """
    store = Store(Path(args.out))
    folder = study_folder(store, args.study) if args.study else newest_with_results(store)
    plan = read_json(folder / "plan.json") or {}
    print(f"# Power of study {folder.name}\n")
    print(report.power(collect(store, plan.get("ids")), plan))
    return 0


def newest_with_results(store: Store) -> Path:
    """The folder of the study planned last of those with a finished cell.

    Raises:
        NothingMeasuredError: if there is none.
    """
    plans = sorted((store.root / "studies").glob("*/plan.json"), key=lambda p: p.stat().st_mtime)
    for path in reversed(plans):
        ids = (read_json(path) or {}).get("ids", [])
        if any(store.run(name).is_done() for name in ids):
            return path.parent
    raise NothingMeasuredError(f"no study in '{store.root / 'studies'}' has a result yet.")
