"""``evaluate``: scores of further tasks for cells that are done, their encoders as they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from bench import registry
from bench.commands.flags import add_out_flag
from bench.errors import NothingMeasuredError, StorageError, StoreError, UsageError, unknown
from bench.plan import typed
from bench.plan.config import Resources, Settings
from bench.plan.loading import load_section
from bench.store import studies
from bench.store.folder import RunFolder
from bench.store.record import load_record
from bench.store.store import Store
from bench.work.flags import add_device_flags


def evaluate(args: argparse.Namespace) -> int:
    """Adds the scores of ``--with`` to the cells named; prints them. Exit code 1 if some failed.

    Raises:
        UsageError: for an unknown task or setting, or a name that is neither run nor study.
        NothingMeasuredError: if none of the cells has finished.
    """
    tasks = _tasks(args.tasks, args.overrides)
    store = Store(Path(args.out))
    cells = _cells(store, args.what)
    known = [config for cell in cells if (config := cell.config())]
    names = {config["config"]["data"]["name"] for config in known}
    root = max((typed.place_of(name, args.data) for name in sorted(names)), default="")
    resources = Resources(
        device=args.device,
        threads=args.threads,
        workers=args.workers or 0,
        micro_batch=args.batch_size,
        data_root=root,
        strict_images=args.strict_images,
        compile=args.compile,
    )
    from bench.work.adding import add_scores
    from bench.work.vet import check_device

    check_device(args.device)
    rows, failed = [], []
    for number, folder in enumerate(cells, 1):
        print(f"{number}/{len(cells)} {folder.run_id}", file=sys.stderr)
        try:
            scores = add_scores(store, folder, tasks, resources)
        except (StoreError, StorageError) as error:
            failed.append(f"{folder.run_id}: {error}")
            continue
        rows.append([folder.run_id, *(f"{scores[name]:.2f}" for name in tasks)])
    if rows:
        heads = ["cell", *(registry.label(name) for name in tasks)]
        print(tabulate(rows, heads, tablefmt="simple", disable_numparse=True))
        print("in the records now; 'report' shows them as not planned", file=sys.stderr)
    for said in failed:
        print(f"failed: {said}", file=sys.stderr)
    return int(bool(failed))


def _tasks(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Settings]:
    """The recipes: a task's defaults, with what was typed."""
    wanted = typed.split_list(names)
    layer = typed.parse_overrides(overrides)
    for section in layer:
        if section not in wanted:
            raise UsageError(f"'{section}' is none of the tasks to add ({', '.join(wanted)}).")
    return {n: load_section(registry.TASKS.config(n), layer.get(n, {}), n) for n in wanted}


def _cells(store: Store, named: Sequence[str]) -> list[RunFolder]:
    """Finished cells: those whose ids begin so, or of the study of that name (the newest)."""
    folders = store.folders()
    known = [folder.name for folder in studies.planned(store)]
    found: dict[str, RunFolder] = {}
    for name in named or [""]:
        if not name or name in known:
            ids = (studies.find(store, name).plan() or {})["ids"]
            chosen = [store.run(i) for i in ids]
        else:
            chosen = [folder for folder in folders if folder.run_id.startswith(name)]
        if not chosen:
            raise unknown("cell or study", name, [*known, *(f.run_id for f in folders[:8])])
        found |= {f.run_id: f for f in chosen if f.is_done() and load_record(f) is not None}
    if not found:
        raise NothingMeasuredError("none of these is a finished cell; name cells or a study.")
    return list(found.values())


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` takes."""
    add_out_flag(parser)
    parser.add_argument(
        "what", nargs="*", metavar="RUN", help="cells, by ids or beginnings, or studies (newest)"
    )
    parser.add_argument(
        "--with",
        nargs="+",
        required=True,
        dest="tasks",
        metavar="T",
        help="tasks to add: see 'ls evaluations'; settings as ridge_all.penalty=0.1",
    )
    parser.add_argument("--data", metavar="NAME:DIR", help="folder of the runs' data set")
    add_device_flags(parser)
