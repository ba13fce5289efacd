"""``retry``: what failed in a study, as it was started."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from bench.commands import study
from bench.commands.flags import add_study_argument
from bench.store import studies
from bench.store.store import Store


def retry(args: argparse.Namespace) -> int:
    """Runs a study's command again; failed and blocked cells are tried anew.

    Raises:
        UsageError: if the study does not say how it was started.
    """
    out = Path(args.out).absolute()
    folder = studies.find(Store(out), args.study)
    _, again = args.parse([*folder.arguments(), "--retry", "--out", str(out)])
    with contextlib.chdir(folder.started_in()):
        return study.run_study(again)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``retry`` takes."""
    add_study_argument(parser)
