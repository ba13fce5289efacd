"""``export``: a study or a run as one archive, or into the files of a tracker."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import registry
from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError, UsageError
from bench.store import studies
from bench.store.archive import export
from bench.store.folder import RunFolder
from bench.store.record import load_record
from bench.store.store import Store
from bench.train.trackers import checked, result_line

ARCHIVE = "archive"


def export_study(args: argparse.Namespace) -> int:
    """Packs a study, its plan, tables and runs, or single runs, into one archive.

    Raises:
        UsageError: for a name that is not known, or a target that is a folder.
    """
    if args.to and args.format == ARCHIVE and Path(args.to).is_dir():
        raise UsageError(f"--to '{args.to}' is a folder: name a file, as {args.to}/x.tar.gz.")
    store = Store(Path(args.out))
    if args.what in {folder.run_id for folder in store.folders()}:
        folders = [store.run(args.what).path]
    else:
        study = studies.find(store, args.what)
        folders = [study.path, *_runs(store, study.plan() or {})]
    if args.format != ARCHIVE:
        runs = [store.run(path.name) for path in folders if path.parent == store.runs]
        target = Path(args.to or f"{folders[0].name}-{args.format}")
        return _hand_over(runs, args.format, target)
    target = Path(args.to or f"{folders[0].name}.tar.gz")
    print(f"{export(store, folders, target, args.records)} folders in {target}")
    return 0


def _hand_over(runs: list[RunFolder], name: str, target: Path) -> int:
    """What each run logged, and its scores, to a tracker that writes into ``target/runs/<id>``."""
    checked([name])
    there = [r.run_id for r in runs if (target / "runs" / r.run_id).exists()]
    if there:
        raise UsageError(f"'{target}' holds {there[0]} already; give another --to, or remove it.")
    make = registry.TRACKERS.load(name)
    for run in runs:
        folder = target / "runs" / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        sink = make(folder, (run.config() or {}).get("config", {}))
        record = load_record(run)
        lines = [*run.metrics(), *([] if record is None else [result_line(vars(record))])]
        for line in lines:
            sink.log(line)
        sink.close()
    print(f"{len(runs)} runs handed to {name} in {target}")
    return 0


def _runs(store: Store, plan: dict[str, list[str]]) -> list[Path]:
    cells = [store.run(i) for i in plan.get("ids", [])]
    parents = {(c.config() or {}).get("parent", "") for c in cells}
    found = [c.path for c in cells] + [store.run(p).path for p in sorted(parents) if p]
    there = [p for p in found if p.is_dir()]
    if not there:
        raise NothingMeasuredError("the study has no runs to export.")
    return there


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``export`` takes."""
    add_out_flag(parser)
    parser.add_argument("what", nargs="?", default="", help="study or run (newest study)")
    parser.add_argument("--to", default="", metavar="PATH", help="archive (.tar.gz) or folder")
    parser.add_argument(
        "--format",
        choices=[ARCHIVE, *registry.TRACKERS.names()],
        default=ARCHIVE,
        help="or a tracker that receives what the runs logged",
    )
    parser.add_argument(
        "--records", action="store_true", help="what a report needs alone: no weights, no logs"
    )
