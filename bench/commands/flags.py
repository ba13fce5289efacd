"""Flags that several commands share, and what they say as values."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bench import registry
from bench.plan.typed import example_arm
from bench.plan.wish import Means, Wish
from bench.work.flags import add_resource_flags, natural

METHOD, ARM = registry.METHODS.ordered()[0], example_arm()
"""A baseline and a variant for the help's examples."""


def add_all(parser: argparse.ArgumentParser) -> None:
    """Everything that says which study, how it is computed, and where it goes."""
    add_study_flags(parser.add_argument_group("study"))
    add_compute_flags(parser.add_argument_group("compute"))
    add_slurm_flags(parser.add_argument_group("with --launcher slurm (or in the site file)"))
    add_output_flags(parser.add_argument_group("output"))


def add_out_flag(group: argparse._ActionsContainer) -> None:
    """The results folder."""
    group.add_argument("--out", default="results", metavar="DIR", help="folder of runs and tables")


def add_study_argument(parser: argparse.ArgumentParser) -> None:
    """The results folder, and which of its studies; the newest unless named."""
    add_out_flag(parser)
    parser.add_argument("study", nargs="?", default="", help="study name (default: the newest)")


def add_study_flags(group: argparse._ArgumentGroup) -> None:
    """Arms, budgets, seeds, data and settings: which study is meant."""
    group.add_argument("--methods", nargs="+", metavar="M", help=f"arms: {METHOD},{ARM},...")
    group.add_argument("--epochs", nargs="+", metavar="E", help="pre-training budgets: 100,200,400")
    group.add_argument("--seeds", nargs="+", metavar="S", help="a count 5, a range 0-4, or 0,1,2")
    group.add_argument(
        "--data",
        default=None,
        metavar="NAME[:DIR]",
        help="digits, fashion-mnist[:DIR], cifar10:DIR, cifar100:DIR, imagenet:DIR, folder:DIR, "
        "a path alone, npz:FILE, procedural, torch/NAME:DIR or hf:NAME (default: the preset's)",
    )
    group.add_argument("--preset", help="model, recipe and data: see 'ls presets' (from --data)")
    group.add_argument("--recipe", metavar="NAME", help="one of the preset's named recipes")
    group.add_argument("--tasks", nargs="+", metavar="T", help="evaluations: finetune,probe,knn")
    group.add_argument(
        "--init",
        default="",
        metavar="FILE",
        help="evaluate this checkpoint (a release's or our own) instead of pre-training",
    )
    group.add_argument("-c", "--config", metavar="FILE", help="suite file in YAML")
    group.add_argument("--suite-seed", type=int, default=None, help="seed shared by all runs")
    group.add_argument(
        "--target", type=int, metavar="E", help="budget whose accuracy is the target"
    )
    group.add_argument(
        "--baseline", metavar="ARM", help="compare every arm with this one, not with its own method"
    )
    group.add_argument("--margin", type=float, help="points within which accuracies count as equal")


def add_compute_flags(group: argparse._ArgumentGroup) -> None:
    """Launcher, runs side by side, devices: what moves no number."""
    group.add_argument("--launcher", choices=registry.LAUNCHERS.names(), default="local")
    group.add_argument(
        "-j", "--jobs", type=natural, default=0, help="runs side by side (0: automatic)"
    )
    group.add_argument("--retry", action="store_true", help="run failed cells again")
    add_resource_flags(group)


def add_slurm_flags(group: argparse._ArgumentGroup) -> None:
    """What a cluster is asked for."""
    group.add_argument("--site", default="", metavar="FILE", help="the cluster's settings in TOML")
    group.add_argument("--partition", help="where the jobs run")
    group.add_argument("--nodes", type=int, help="nodes a run")
    group.add_argument(
        "--ngpus", "--gpus-per-node", type=int, dest="gpus_per_node", help="GPUs (processes) a node"
    )
    group.add_argument("--tasks-per-node", type=int, help="processes a node (default: one a GPU)")
    group.add_argument("--cpus-per-task", type=int, help="cores a process")
    group.add_argument("--mem-gb", type=float, help="memory a node")
    group.add_argument(
        "--timeout", "--timeout-min", type=int, dest="timeout_min", metavar="MIN", help="time limit"
    )
    group.add_argument("--account", help="whom to bill")
    group.add_argument("--qos", help="quality of service")
    group.add_argument("--constraint", help="node features")
    group.add_argument("--exclude", help="nodes to avoid")
    group.add_argument("--comment", help="comment on the jobs")
    group.add_argument("--array-parallelism", type=int, metavar="N", help="runs at once, at most")
    group.add_argument("--job-dir", metavar="DIR", help="scripts and logs of jobs (OUT/jobs)")
    group.add_argument("--poll", type=float, dest="poll_s", metavar="S", help="seconds a look")
    group.add_argument("--detach", action="store_true", help="submit and return at once")


def add_output_flags(group: argparse._ArgumentGroup) -> None:
    """Where it goes."""
    add_out_flag(group)
    group.add_argument("--name", default="", help="name of the study's folder (default: readable)")
    group.add_argument("--dry-run", action="store_true", help="show the plan, compute nothing")
    group.add_argument("--calibrate", action="store_true", help="time a few steps for the plan")
    add_result_flags(group)


def add_result_flags(group: argparse._ActionsContainer) -> None:
    """How strictly a result is read: gates, JSON, exit codes."""
    group.add_argument("--strict", action="store_true", help="exit 1 on anything missing or mixed")
    group.add_argument("--json", action="store_true", help="print the table as JSON")
    group.add_argument(
        "--assert",
        dest="gates",
        action="append",
        default=[],
        metavar="GATE",
        help=f"exit 4 unless it holds, as 'rho_low({ARM})>1.5' or 'noninferior({ARM})'",
    )
    group.add_argument(
        "--allow-pilot", action="store_true", help="gates may rest on fewer than five seeds"
    )


SITE = (
    *("partition", "nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task", "mem_gb"),
    *("timeout_min", "account", "qos", "constraint", "exclude", "comment"),
    *("array_parallelism", "job_dir", "poll_s"),
)
"""Site settings that have a flag of their own."""


def site_settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """Site settings given as flags; None where there is no such flag on the line."""
    return {name: getattr(args, name) for name in SITE}


def wish_of(args: argparse.Namespace) -> Wish:
    """The study that the flags ask for."""
    return Wish(
        methods=args.methods,
        epochs=args.epochs,
        seeds=args.seeds,
        data=args.data or "",
        preset=args.preset or "",
        recipe=args.recipe,
        tasks=args.tasks,
        config=args.config or "",
        settings=args.overrides,
        suite_seed=args.suite_seed,
        target=args.target,
        baseline=args.baseline,
        margin=args.margin,
        init=args.init,
        name=args.name,
    )


def means_of(args: argparse.Namespace) -> Means:
    """How the flags ask for it to be computed."""
    return Means(
        launcher=args.launcher,
        jobs=args.jobs,
        threads=args.threads,
        workers=args.workers,
        device=args.device,
        micro_batch=args.batch_size,
        retry=args.retry,
        detach=args.detach,
        strict_images=args.strict_images,
        checkpoint_every_s=args.checkpoint_every,
        trackers=args.track,
        compile=args.compile,
        site=args.site,
        settings=site_settings(args),
    )
