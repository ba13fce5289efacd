"""``report``: a study's tables and plots, rebuilt from its run folders or an archive of them."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.commands.flags import add_result_flags, add_study_argument
from bench.commands.publish import Saying, publish
from bench.errors import UsageError, shown
from bench.plan.typed import split_list
from bench.plan.wish import ALL
from bench.store import studies
from bench.store.archive import opened
from bench.store.store import Store

PICTURE = "png"
"""Format of the plot that a README shows."""


def show_report(args: argparse.Namespace) -> int:
    """Rebuilds a study's tables and plots, from its run folders or from an archive of them."""
    target = Path(args.to) if args.to else None
    saying = Saying(
        formats=split_list(args.format) + [PICTURE] * bool(args.readme),
        json=args.json,
        strict=args.strict,
        gates=args.gates,
        allow_pilot=args.allow_pilot,
        readme=args.readme,
    )
    if args.archive and args.all:
        raise UsageError("--archive holds one study; leave out --all.")
    if args.all and args.study:
        raise UsageError(
            f"--all is every run in the folder; leave it out, or '{shown(args.study)}'."
        )
    if args.archive:
        with tempfile.TemporaryDirectory() as place:
            store, folder = opened(Path(place), Path(args.archive), args.study)
            into = target or Path(args.archive).parent / folder.name
            return publish(store, folder, saying, into)
    store = Store(Path(args.out))
    folder = studies.folder_of(store, ALL) if args.all else studies.find(store, args.study)
    return publish(store, folder, saying, target)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``report`` takes."""
    add_study_argument(parser)
    parser.add_argument("--all", action="store_true", help="every run in the folder, no plan")
    parser.add_argument("--format", nargs="+", default=["md", "csv", "json", "html", "png"])
    parser.add_argument("--archive", default="", metavar="FILE", help="read an exported study")
    parser.add_argument("--to", default="", metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--readme",
        default="",
        metavar="FILE",
        help="put verdicts and forest plot between its result marks, or those of the study's name",
    )
    add_result_flags(parser)
