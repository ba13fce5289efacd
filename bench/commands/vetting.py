"""From a request to one that can be computed: what a dry run and every launcher refuse alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.commands.cluster import FLAGS, site_of
from bench.commands.request import Request, make_request
from bench.errors import UsageError
from bench.launch.slurm.site import Site
from bench.plan.config import RunConfig
from bench.plan.study import Task


def vetted_request(args: argparse.Namespace) -> Request:
    """The request, once nothing is left that would be found too late; writes nothing.

    Raises:
        UsageError: for anything wrong with it.
    """
    check_flags(args)
    request = make_request(args)
    vet_tasks(args, request, request.study.tasks())
    return request


def vet_tasks(args: argparse.Namespace, request: Request, tasks: Sequence[Task]) -> None:
    """Vets the tasks that are not done, and that all of a study saw the same images.

    Torch is imported only where there is something to vet.

    Raises:
        UsageError: naming what is wrong.
    """
    site = site_of(args) if args.launcher == "slurm" else None
    missing = [t.config for t in tasks if not request.store.run(t.run_id).is_done()]
    if site is not None:
        _check_site(site, args, missing)
    if not missing and not request.resources.data_root:
        return

    from bench.work import vet

    config = request.study.cells[0].config
    vet.check_same_images(config, request.resources, request.store, [t.run_id for t in tasks])
    place = vet.Place(site is None, site.mem_gb if site else 0.0)
    request.warnings.extend(vet.vet(missing, request.resources, place))


def _check_site(site: Site, args: argparse.Namespace, configs: Sequence[RunConfig]) -> None:
    processes = site.nodes * site.tasks
    smallest = min((c.pretrain.batch_size for c in configs), default=2 * processes)
    if smallest < 2 * processes:
        raise UsageError(
            f"{processes} processes cannot share a batch of {smallest} images: fewer --nodes or "
            "--ngpus, or a larger pretrain.batch_size."
        )
    if "%" in args.out:
        raise UsageError(f"--out '{args.out}': SLURM reads '%' in the paths of its logs as a code.")


def check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that the launcher chosen, or the lack of a flag, would leave unread.

    Raises:
        UsageError: naming the flag.
    """
    if args.launcher != "slurm":
        given = [name for name in FLAGS if getattr(args, name) is not None]
        given += [name for name in ("site", "detach") if getattr(args, name, None)]
        if given:
            flag = {"gpus_per_node": "ngpus", "timeout_min": "timeout", "poll_s": "poll"}
            name = flag.get(given[0], given[0]).replace("_", "-")
            raise UsageError(f"--{name} is read with --launcher slurm alone. Add it, or leave it.")
    if getattr(args, "jobs", 0) and args.launcher != "local":
        raise UsageError(f"--jobs is for runs on this machine, not for --launcher {args.launcher}.")
