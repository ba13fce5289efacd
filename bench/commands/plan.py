"""``plan`` (the same as ``--dry-run``): cells, ids, states, differences and cost of a study."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tabulate import tabulate

from bench import library, registry
from bench.commands.flags import means_of, wish_of
from bench.commands.recipe import recipe_lines
from bench.errors import few
from bench.launch.base import dependents, missing
from bench.library import Request
from bench.plan.config import RunConfig
from bench.plan.fairness import switched_on
from bench.plan.study import PRETRAIN, Study, Task, describe
from bench.store.states import BLOCKED, DONE
from bench.work.estimate import (
    Speed,
    SpeedKey,
    cost,
    format_seconds,
    speed_key,
    stored_speeds,
)

MOST_S = 600.0
"""Seconds after which no further arm is timed."""


def show_plan(args: argparse.Namespace) -> int:
    """Prints arms and cells with their ids and states; computes nothing."""
    request = library.plan(wish_of(args), args.out, means_of(args))
    check_gates(args.gates, request)
    library.check_recipe(request)
    for note in [*request.planned.idle, *request.folder.standing(request.study.to_plain())]:
        print(f"warning: {note}", file=sys.stderr)
    found = request.survey()
    blocked = {p.task.run_id for p in dependents(found)}
    states = {p.task.run_id: BLOCKED if p.task.run_id in blocked else p.state for p in found}
    lacking = missing(found)
    if args.json:
        for warning in request.planned.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(json.dumps({**request.study.to_plain(), "states": states}, indent=1))
        return 0
    print("\n".join([*recipe_lines(request, lacking), *arm_lines(request.study)]))
    print("\n" + _cell_table(request.study, states))
    done = sum(s == DONE for s in states.values())
    print(f"\n{len(states)} runs, {done} done. Study folder: {request.folder.path}")
    for line in getattr(library.launcher(request), "describe", lambda tasks: [])(lacking):
        print(line)
    print(_cost_line(request, args.calibrate, lacking))
    for warning in request.planned.warnings:
        print(f"warning: {warning}")
    return 0


def check_gates(expressions: Sequence[str], request: library.Request) -> None:
    """Refuses gates that cannot be read, or that ask for what the study will not measure.

    Raises:
        UsageError: naming the gate.
    """
    if expressions:
        from bench.report import write

        for expression in expressions:
            write.check_gate(expression, request.study, request.folder.plan())


def arm_lines(study: Study) -> list[str]:
    """Batch, learning rates and warm-up of every arm, and what is compared with what."""
    arms = {c.config.arm: c.config for c in study.cells}
    differences = [
        f"{name} = {config.base_arm} + {said}"
        for name, config in arms.items()
        if (said := switched_on(config))
    ]
    return [_arm_table(study), *differences]


def _arm_table(study: Study) -> str:
    rows = {(c.config.arm, c.config.pretrain.epochs): describe(c.config) for c in study.cells}
    table = [
        [
            d["arm"],
            epochs,
            d["batch"],
            f"{d['lr']:.3g}",
            f"{d['warmup_epochs']:g} ({d['warmup_share']:.0%})",
            "" if d["task_lr"] is None else f"{d['task_lr']:.3g}",
        ]
        for (_, epochs), d in rows.items()
    ]
    label = registry.label(study.cells[0].config.tasks[0][0])
    heads = ["arm", "epochs", "effective batch", "peak lr", "warm-up epochs", f"{label} peak lr"]
    return tabulate(table, heads, tablefmt="simple")


def _cell_table(study: Study, states: Mapping[str, str]) -> str:
    rows = [
        [
            c.config.arm,
            c.config.pretrain.epochs,
            c.config.seed,
            states[c.pretrain_id],
            c.run_id,
            states[c.run_id],
        ]
        for c in study.cells
    ]
    heads = ["arm", "epochs", "seed", "pre-train", "cell", "state"]
    return tabulate(rows, heads, tablefmt="simple")


def _cost_line(request: Request, measure: bool, lacking: Sequence[Task]) -> str:
    """Hours, wall time and disk of what is missing, from stored or freshly measured speeds."""
    speeds = _speeds(request, lacking, measure)
    runs = sum(t.stage == PRETRAIN for t in lacking)
    places = library.launcher(request).places(runs)
    found = cost(lacking, speeds, (places.jobs, places.units))
    lines = []
    if len(found.unknown) < len({t.config.arm for t in lacking}) or not lacking:
        lines.append(
            f"cost of what is missing, at measured speed: {found.pretrain_hours:.3g} "
            f"{places.unit}-hours of pre-training, {found.evaluation_hours:.3g} of evaluation; "
            f"about {format_seconds(found.wall_s)} with {places.jobs} side by side; "
            f"{found.disk_mib:.3g} MiB on disk"
        )
    names = few(found.unknown)
    if names and not places.here and places.unit == "GPU":
        unknown = [t for t in lacking if speed_key(t) not in speeds]
        lines.append(_counted_line(names, unknown, request))
    elif names:
        lines.append(f"cost: no measured speed yet of {names}; add --calibrate to time a few steps")
    return "\n".join(lines)


def _counted_line(names: str, tasks: Sequence[Task], request: Request) -> str:
    """GPU-hours of arms that no GPU has computed here yet, from counted operations."""
    from bench.work.operations import CARD, CARD_RATE, SHARES, gpu_hours

    print(f"counting the operations of {names}", file=sys.stderr)
    hours = gpu_hours(tasks, request.resources.data_root)
    (low, high), (least, most) = hours.pretrain, hours.finetune
    return (
        f"cost of what no speed is known of yet ({names}), counted, not measured: "
        f"{low:.3g} to {high:.3g} GPU-hours of pre-training and {least:.3g} to {most:.3g} of "
        f"fine-tuning on {CARD}, if a step reaches {SHARES[1]:.0%} to {SHARES[0]:.0%} of its "
        f"{CARD_RATE / 1e12:g} TFLOP/s in bf16; probes, waiting for data and queues come on top. "
        "Once some runs are there, their speeds are taken"
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
    fresh = {speed_key(t): t.config for t in tasks if speed_key(t) not in speeds}
    return {**speeds, **_measured(request, fresh)} if measure else speeds


def _measured(request: Request, configs: Mapping[SpeedKey, RunConfig]) -> dict[SpeedKey, Speed]:
    """Speeds of arms timed now, where the launcher's runs would be, within :data:`MOST_S`."""
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    launcher = library.launcher(request, say)
    there = getattr(launcher, "calibrate", None)
    if there is not None and configs:
        found = zip(configs, there(list(configs.values())), strict=True)
        return {key: speed for key, speed in found if speed is not None}
    from bench.work.calibrate import calibrate

    places, resources = launcher.places(1), request.resources
    if places.unit == "core":
        resources = replace(resources, threads=places.units // places.processes)
    begun, speeds = time.monotonic(), {}
    for number, (key, config) in enumerate(configs.items(), 1):
        if time.monotonic() - begun > MOST_S:
            say(f"{len(configs) - number + 1} arm(s) not timed: {MOST_S / 60:.0f} minutes are over")
            break
        say(f"timing {number} of {len(configs)}: {config.arm}")
        speeds[key] = calibrate(config, resources, places.processes)
    return speeds
