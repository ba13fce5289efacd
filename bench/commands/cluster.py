"""From the command line to the SLURM launcher, and from its jobs back to states of runs."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace

from bench.commands.request import Request
from bench.errors import SchedulerError
from bench.launch.slurm.launcher import SlurmLauncher
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.site import Site, load_site
from bench.launch.slurm.tracking import track_folder
from bench.store.store import Store

FLAGS = (
    "partition",
    "nodes",
    "gpus_per_node",
    "tasks_per_node",
    "cpus_per_task",
    "mem_gb",
    "timeout_min",
    "account",
    "qos",
    "constraint",
    "exclude",
    "comment",
    "array_parallelism",
    "job_dir",
    "poll_s",
)
"""Site settings that have a flag of their own."""


def site_of(args: argparse.Namespace) -> Site:
    """The site file and the flags that over-rule it."""
    return load_site(args.site, {name: getattr(args, name) for name in FLAGS})


def slurm_launcher(args: argparse.Namespace, request: Request) -> SlurmLauncher:
    """The launcher for this request."""
    site = site_of(args)
    resources = replace(
        request.resources,
        nodes=site.nodes,
        gpus_per_node=site.gpus_per_node,
        threads=args.threads or site.cpus_per_task or 1,
        workers=request.resources.workers if args.workers is not None else _workers(site, request),
    )
    return SlurmLauncher(
        request.store, resources, site, request.folder, retry=args.retry, detach=args.detach
    )


def _workers(site: Site, request: Request) -> int:
    """Data workers on a compute node: its cores, not those of this machine."""
    return max(1, site.cpus_per_task - 1) if request.resources.workers else 0


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
