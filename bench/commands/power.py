"""``power``: what more seeds would resolve, and their cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import library
from bench.commands.flags import add_study_argument
from bench.report import write
from bench.store import studies
from bench.store.store import Store


def show_power(args: argparse.Namespace) -> int:
    """Prints what more seeds would resolve, and what they would cost.

    Raises:
        NothingMeasuredError: if no study has a result, or it lacks what is to be advised on.
    """
    store = Store(Path(args.out))
    folder = studies.find(store, args.study) if args.study else studies.newest_with_results(store)
    text = write.power(library.findings_of(store, folder))
    print(f"# Power of study {folder.name}\n\n{text}")
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``power`` takes."""
    add_study_argument(parser)
