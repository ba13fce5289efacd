"""``export`` and ``import``: studies between machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.commands.results import study_folder
from bench.errors import NothingMeasuredError
from bench.store.archive import export, unpack
from bench.store.files import read_json
from bench.store.store import Store


def export_study(args: argparse.Namespace) -> int:
    """Packs a study, its plan, tables and runs, or single runs, into one archive."""
    store = Store(Path(args.out))
    if store.run(args.what).path.is_dir() and args.what:
        folders = [store.run(args.what).path]
    else:
        study = study_folder(store, args.what)
        folders = [study, *_runs(store, read_json(study / "plan.json") or {})]
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


def import_archive(args: argparse.Namespace) -> int:
    """Unpacks an archive into the results folder; what is there already stays as it is."""
    taken, kept = unpack(Store(Path(args.out)), Path(args.archive))
    print(f"{len(taken)} imported, {len(kept)} already there and left alone")
    return 0
