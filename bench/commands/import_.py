"""``import``: an archive's runs into a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.store.archive import unpack
from bench.store.store import Store


def import_archive(args: argparse.Namespace) -> int:
    """Unpacks an archive into the results folder; what is there already stays as it is."""
    taken, kept = unpack(Store(Path(args.out)), Path(args.archive))
    print(f"{len(taken)} imported, {len(kept)} already there and left alone")
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``import`` takes."""
    add_out_flag(parser)
    parser.add_argument("archive", metavar="FILE")
