"""From the command line to the SLURM launcher, and from its jobs back to states of runs."""

from __future__ import annotations

import argparse
import shutil

from bench.commands.flags import site_settings
from bench.errors import SchedulerError
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.site import Site, load_site
from bench.launch.slurm.tracking import track_folder
from bench.store.store import Store


def site_of(args: argparse.Namespace) -> Site:
    """The site file and the flags that over-rule it."""
    return load_site(args.site, site_settings(args))


def scheduled_states(store: Store) -> dict[str, str]:
    """States of submitted runs, asked of the scheduler once; what it tells is recorded.

    Empty where there are no jobs or no scheduler.
    """
    if shutil.which("squeue") is None:
        return {}
    try:
        return track_folder(store, Scheduler(shutil.which("sacct") is not None)).look()
    except SchedulerError:
        return {}
