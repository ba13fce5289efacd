"""What a launch would submit, in words: arrays and what they wait for, sizes, limits, a header."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bench.errors import SchedulerError
from bench.launch.slurm.scheduler import DEFAULT_MAX_ARRAY, Cluster, this_cluster
from bench.launch.slurm.submission import Array, arrays, shares
from bench.launch.slurm.submit import Place, Submitter
from bench.plan.study import PRETRAIN, Task


def forecast(submitter: Submitter, tasks: Sequence[Task]) -> list[str]:
    """Lines that describe the jobs of the tasks; nothing is submitted."""
    cluster = _cluster()
    found = arrays(tasks, {}, cluster.max_array)
    if not found:
        return []
    bounds = shares(found, submitter.site.array_parallelism)
    lines = [
        f"  {number}. {_array(array)}, at most {share} at once"
        + (f", after array {after + 1} (afterany)" if after >= 0 else "")
        for number, (array, (share, after)) in enumerate(zip(found, bounds, strict=True), 1)
    ]
    return [
        f"jobs: {len(found)} array(s), as if nothing were queued yet",
        *lines,
        f"  {len(found) + 1}. a report behind all of them (afterany)",
        f"each run: {_size(submitter)}",
        *(f"  {line}" for line in _batches(submitter, tasks)),
        f"limits: {_limits(submitter)}",
        "header of a pre-training's script:" if _pretrains(found) else "header of a cell's script:",
        *(f"  {line}" for line in _header(submitter, found[0], bounds[0][0])),
    ]


def _cluster() -> Cluster:
    """This cluster, or SLURM's own largest array where none answers."""
    try:
        return this_cluster() if shutil.which("scontrol") else Cluster("", DEFAULT_MAX_ARRAY)
    except SchedulerError:
        return Cluster("", DEFAULT_MAX_ARRAY)


def _pretrains(found: Sequence[Array]) -> bool:
    return found[0].tasks[0].stage == PRETRAIN


def _array(array: Array) -> str:
    what = "pre-trainings" if array.tasks[0].stage == PRETRAIN else "cells"
    if array.follows < 0:
        return f"{len(array.tasks)} {what}"
    how = "aftercorr" if len(array.tasks) > 1 else "afterok"
    return f"{len(array.tasks)} {what}, each behind its pre-training in {array.follows + 1} ({how})"


def _size(submitter: Submitter) -> str:
    site = submitter.site
    units = f"{site.gpus_per_node} GPU(s)" if site.gpus_per_node else "no GPU"
    cores = f", {site.cpus_per_task} core(s) a process" if site.cpus_per_task else ""
    room = f", {site.mem_gb:g} GB a node" if site.mem_gb else ""
    return f"{site.nodes} node(s) x {units}, {site.nodes * site.tasks} process(es){cores}{room}"


def _batches(submitter: Submitter, tasks: Sequence[Task]) -> list[str]:
    """Images a process and accumulation, a line for each effective batch of a pre-training."""
    processes = submitter.site.nodes * submitter.site.tasks
    arms: dict[int, list[str]] = {}
    for task in tasks:
        arms.setdefault(task.config.pretrain.batch_size, []).append(task.config.arm)
    lines = []
    for batch, names in arms.items():
        share = -(-batch // processes)
        held = min(share, submitter.resources.micro_batch or share)
        parts = -(-share // held)
        lines.append(
            f"{', '.join(dict.fromkeys(names))}: batch {batch} = {share} images a process, "
            f"{held} at once x {parts} accumulated"
        )
    return lines


def _limits(submitter: Submitter) -> str:
    site = submitter.site
    return (
        f"{site.timeout_min} min a pre-training, {site.cell_timeout_min or site.timeout_min} a "
        f"cell; told {site.signal_delay_s} s ahead to save, queued again at most "
        f"{site.max_requeues} times, {site.kill_retries} after a kill"
    )


def _header(submitter: Submitter, array: Array, share: int) -> list[str]:
    """The lines that sbatch reads, as submitit writes them."""
    from submitit.slurm import slurm

    job = submitter._new_job(array.tasks[0].stage, Place(submitter.store.root, Cluster("", 1)))
    parameters = submitter._parameters(job, array.tasks[0].stage, [])
    several = {"map_count": len(array.tasks)} if len(array.tasks) > 1 else {}
    text = slurm._make_sbatch_string(
        command="", folder=submitter.job_dir, array_parallelism=share, **several, **parameters
    )
    passing = ("--chdir", "--comment")  # a folder and a word of each launch
    lines = [x for x in text.splitlines() if x.startswith("#SBATCH")]
    return [x for x in lines if not any(word in x for word in passing)]
