"""``import``: an archive's runs into a results folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.plan.study import CELL
from bench.store import studies
from bench.store.archive import unpack
from bench.store.store import Store
from bench.store.studies import StudyFolder


def import_archive(args: argparse.Namespace) -> int:
    """Unpacks an archive into the results folder; what is there already stays as it is."""
    store = Store(Path(args.out))
    taken, kept = unpack(store, Path(args.archive))
    print(f"{len(taken)} imported, {len(kept)} already there and left alone")
    for name in kept:
        _say_what_it_lacks(store, studies.folder_of(store, name), taken)
    return 0


def _say_what_it_lacks(store: Store, study: StudyFolder, taken: Sequence[str]) -> None:
    """Of a study that was there already, how many cells came in that its plan does not hold."""
    plan = study.plan()
    configs = {name: store.run(name).config() or {} for name in taken}
    cells = {name for name, config in configs.items() if config.get("stage") == CELL}
    if plan is not None and (left := cells - set(plan["ids"])):
        print(
            f"warning: the plan of '{study.name}' stays as it was; {len(left)} of the cells "
            "imported are not in it. Its command with all seeds takes them in and computes "
            "none again.",
            file=sys.stderr,
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``import`` takes."""
    add_out_flag(parser)
    parser.add_argument("archive", metavar="FILE")
