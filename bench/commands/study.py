"""The main command: plan a study, compute what is missing, print and save its table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from bench.commands.cluster import slurm_launcher
from bench.commands.progress import StudyView, format_seconds
from bench.commands.request import Request
from bench.commands.results import TABLES, publish
from bench.commands.vetting import vetted_request
from bench.errors import DetachedError, remedy
from bench.launch.base import Launcher, Progress, register, survey
from bench.launch.inline import InlineLauncher
from bench.launch.local import LocalLauncher, visible_gpus
from bench.plan.config import Resources
from bench.plan.fairness import arm_differences
from bench.plan.study import PRETRAIN, Study, Task, describe, plain_config
from bench.report import write as report
from bench.report.terminal import COLUMNS
from bench.store.files import read_json, write_json
from bench.store.states import DONE, FAILED
from bench.work.estimate import Speed, SpeedKey, cost, speed_key, stored_speeds


def run_study(args: argparse.Namespace) -> int:
    """Plans, computes what is missing, and prints and saves the table."""
    if args.dry_run:
        return show_plan(args)
    for expression in args.gates:
        report.check_gate(expression)
    request = vetted_request(args)
    request.store.check_writable()
    _freeze(request, args)
    tasks = request.study.tasks()
    missing = [p for p in survey(request.store, tasks, args.retry) if p.state != DONE]
    if missing:
        _announce(request, len(tasks), len(missing))
        try:
            ended = compute(args, request, tasks)
        except DetachedError as away:
            print(away, file=sys.stderr)
            return away.exit_code
        _explain(request, ended)
    return publish(request.store, request.folder, args, TABLES)


def compute(
    args: argparse.Namespace, request: Request, tasks: Sequence[Task]
) -> Sequence[Progress]:
    """Computes what is missing of the tasks, each registered in its folder first."""
    for task in tasks:
        register(request.store, task)
    with StudyView() as view:
        return make_launcher(args, request).launch(tasks, view)


def _freeze(request: Request, args: argparse.Namespace) -> None:
    """Writes plan.json and the resolved settings, once: the first plan of a study stands."""
    path = request.folder / "plan.json"
    write_json(request.folder / "command.json", {"arguments": args.command_line})
    plan = {**request.study.to_plain(), "warnings": request.warnings}
    kept = read_json(path)
    if kept is not None:
        _extend(path, kept, plan)
    else:
        write_json(path, plan)
        configs = {c.config.arm: plain_config(c.config) for c in request.study.cells}
        (request.folder / "resolved.yaml").write_text(yaml.safe_dump(configs, sort_keys=False))


def _extend(path: Path, kept: dict[str, Any], plan: dict[str, Any]) -> None:
    """Adds new cells to a frozen plan; its seeds, budgets, arms and analysis stay as planned.

    The report then lists what was added as deviations.
    """
    for key in ("target_epochs", "margin", "alpha"):
        if kept.get(key) != plan[key]:
            print(
                f"warning: this study was planned with {key}={kept.get(key)}, which stands; "
                f"give another --name to plan one with {plan[key]}",
                file=sys.stderr,
            )
    ids = list(dict.fromkeys([*kept["ids"], *plan["ids"]]))
    if ids != kept["ids"]:
        write_json(path, {**kept, "ids": ids})


def _announce(request: Request, total: int, missing: int) -> None:
    for line in _switched(request.study):
        print(textwrap.fill(line, COLUMNS, subsequent_indent="  "), file=sys.stderr)
    settings = request.folder / "resolved.yaml"
    print(f"{missing} of {total} runs to compute; settings: {settings}", file=sys.stderr)


def _switched(study: Study) -> list[str]:
    """The settings that are on in each variant, arms of equal ones together."""
    arms: dict[str, list[str]] = {}
    for config in {c.config.arm: c.config for c in study.cells}.values():
        for line in arm_differences(config):
            arms.setdefault(line.partition(" (")[2].removesuffix(")"), []).append(config.arm)
    return [f"{', '.join(dict.fromkeys(names))}: {said}" for said, names in arms.items()]


def _arm_table(study: Study) -> str:
    rows = {(c.config.arm, c.config.pretrain.epochs): describe(c.config) for c in study.cells}
    table = [
        [
            d["arm"],
            epochs,
            d["batch"],
            f"{d['lr']:.3g}",
            f"{d['warmup_epochs']:g} ({d['warmup_share']:.0%})",
            f"{d['finetune_lr']:.3g}",
        ]
        for (_, epochs), d in rows.items()
    ]
    heads = ["arm", "epochs", "effective batch", "peak lr", "warm-up epochs", "fine-tune peak lr"]
    return tabulate(table, heads, tablefmt="simple")


def make_launcher(args: argparse.Namespace, request: Request) -> Launcher:
    """The launcher asked for, with jobs and threads chosen for this machine."""
    if args.launcher == "inline":
        return InlineLauncher(request.store, request.resources, args.retry)
    if args.launcher == "slurm":
        return slurm_launcher(args, request)
    jobs, gpus = slots(args, request.resources)
    return LocalLauncher(request.store, request.resources, jobs, args.retry, gpus)


def slots(args: argparse.Namespace, resources: Resources) -> tuple[int, list[str]]:
    """Runs side by side, and ids of GPUs, on this machine."""
    gpus = visible_gpus() if args.device in ("auto", "cuda") else []
    cores = len(os.sched_getaffinity(0))
    return args.jobs or len(gpus) or max(1, cores // resources.threads), gpus


def _explain(request: Request, ended: Sequence[Progress]) -> None:
    failed = [p for p in ended if p.state == FAILED]
    for failure in sorted({p.status.get("failure", "") for p in failed}):
        print(f"{failure or 'failed'}: {remedy(failure)}", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} run(s) failed. Read one with 'python -m bench.run log "
            f"{failed[0].task.run_id} --out {request.store.root}', then add --retry.",
            file=sys.stderr,
        )


def show_plan(args: argparse.Namespace) -> int:
    """Prints arms and cells with their ids and states; computes nothing."""
    request = vetted_request(args)
    states = {p.task.run_id: p.state for p in survey(request.store, request.study.tasks(), False)}
    if args.json:
        print(json.dumps({**request.study.to_plain(), "states": states}, indent=1))
        return 0
    print(_arm_table(request.study))
    for line in _differences(request.study):
        print(line)
    rows = [
        [
            c.config.arm,
            c.config.pretrain.epochs,
            c.config.seed,
            states[c.pretrain_id],
            c.run_id,
            states[c.run_id],
        ]
        for c in request.study.cells
    ]
    heads = ["arm", "epochs", "seed", "pre-train", "cell", "state"]
    print("\n" + tabulate(rows, heads, tablefmt="simple"))
    done = sum(s == DONE for s in states.values())
    print(f"\n{len(states)} runs, {done} done. Study folder: {request.folder}")
    print(_cost_line(request, args, states))
    for warning in request.warnings:
        print(f"warning: {warning}")
    return 0


def _differences(study: Study) -> list[str]:
    """What is compared with what, one line a variant."""
    arms = {c.config.arm: c.config for c in study.cells}
    return [line for config in arms.values() for line in arm_differences(config)]


def _cost_line(request: Request, args: argparse.Namespace, states: Mapping[str, str]) -> str:
    """Hours, wall time and disk of what is missing, from stored or freshly measured speeds."""
    missing = [t for t in request.study.tasks() if states[t.run_id] != DONE]
    speeds = _speeds(request, missing, args.calibrate)
    jobs, units, unit = _places(args, request, sum(t.stage == PRETRAIN for t in missing))
    found = cost(missing, speeds, (jobs, units))
    if found.unknown:
        names = ", ".join(found.unknown)
        return f"cost: no measured speed yet of {names}; add --calibrate to time a few steps"
    return (
        f"cost of what is missing, at the speed of this machine: {found.pretrain_hours:.3g} "
        f"{unit}-hours of pre-training, {found.finetune_hours:.3g} of fine-tuning; about "
        f"{format_seconds(found.wall_s)} with {jobs} side by side; {found.disk_mib:.3g} MiB on disk"
    )


def _speeds(request: Request, tasks: Sequence[Task], measure: bool) -> dict[SpeedKey, Speed]:
    """Speeds of earlier runs in the folder; of other arms measured now, if asked to."""
    records = request.store.records()
    speeds = stored_speeds(records)
    for record in records:
        key = (record.arm, record.data, record.model)
        if key in speeds and not speeds[key].disk_mib:
            files = request.store.run(record.pretrain_id).path.glob("*.safetensors")
            size = sum(f.stat().st_size for f in files)
            speeds[key] = replace(speeds[key], disk_mib=size / 2**20)
    if measure:
        from bench.work.calibrate import calibrate

        for task in tasks:
            if speed_key(task) not in speeds:
                speeds[speed_key(task)] = calibrate(task.config, request.resources)
    return speeds


def _places(args: argparse.Namespace, request: Request, runs: int) -> tuple[int, int, str]:
    """Runs side by side, devices or cores a run, and which of them, for the launcher chosen."""
    if args.launcher == "slurm":
        gpus = (args.nodes or 1) * (args.gpus_per_node or 0)
        jobs = args.array_parallelism or max(1, runs)
        return jobs, gpus or request.resources.threads, "GPU" if gpus else "core"
    jobs, found = slots(args, request.resources)
    return (jobs, 1, "GPU") if found else (jobs, request.resources.threads, "core")
