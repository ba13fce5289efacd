"""``export``: a study or a run as one archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError
from bench.store import studies
from bench.store.archive import export
from bench.store.store import Store


def export_study(args: argparse.Namespace) -> int:
    """Packs a study, its plan, tables and runs, or single runs, into one archive."""
    store = Store(Path(args.out))
    if args.what in {folder.run_id for folder in store.folders()}:
        folders = [store.run(args.what).path]
    else:
        study = studies.find(store, args.what)
        folders = [study.path, *_runs(store, study.plan() or {})]
    target = Path(args.to or f"{folders[0].name}.tar.gz")
    print(f"{export(store, folders, target, args.records)} folders in {target}")
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
    parser.add_argument("--to", default="", metavar="FILE", help="archive to write (.tar.gz)")
    parser.add_argument(
        "--records", action="store_true", help="what a report needs alone: no weights, no logs"
    )
