"""``retry``: what failed in a study, as it was started."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from bench import library
from bench.commands import study
from bench.commands.flags import add_study_argument, means_of, wish_of
from bench.errors import UsageError
from bench.store import studies
from bench.store.store import Store


def retry(args: argparse.Namespace) -> int:
    """Runs a study's command again; failed and blocked cells are tried anew.

    Raises:
        UsageError: if the study does not say how it was started, or its command means another now.
    """
    out = Path(args.out).absolute()
    folder = studies.find(Store(out), args.study)
    arguments = folder.arguments()
    _, again = args.parse([*arguments, "--retry", "--out", str(out)])
    again.command_line = arguments
    with contextlib.chdir(folder.started_in()):
        meant = library.outline(wish_of(again), again.out, means_of(again))
        if meant.name != folder.name:
            raise UsageError(
                f"the command of '{folder.name}' means '{meant.name}' now: its images or its suite "
                "file have changed. Put them back, or give the command itself for a new study."
            )
        return study.run_study(again)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``retry`` takes."""
    add_study_argument(parser)
