"""From the command line to the SLURM launcher, and from its jobs back to states of runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass, field

from bench.commands.flags import site_settings
from bench.errors import SchedulerError
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.site import Site, load_site
from bench.launch.slurm.tracking import track_folder
from bench.store.store import Store


def site_of(args: argparse.Namespace) -> Site:
    """The site file and the flags that over-rule it."""
    return load_site(args.site, site_settings(args))


@dataclass(frozen=True)
class Scheduled:
    """What the scheduler tells of submitted runs: their states, and why jobs wait."""

    states: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def ask_scheduler(store: Store) -> Scheduled:
    """Asks the scheduler once about submitted runs; what it tells is recorded.

    Empty where there are no jobs or no scheduler; one that does not answer is warned of.
    """
    if shutil.which("squeue") is None:
        return Scheduled()
    tracker = track_folder(store, Scheduler(shutil.which("sacct") is not None))
    try:
        return Scheduled(tracker.look(), tracker.reasons)
    except SchedulerError as error:
        print(f"warning: {error}; states are as the runs' files tell them", file=sys.stderr)
        return Scheduled()
