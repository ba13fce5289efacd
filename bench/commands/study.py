"""The main command: plan a study, compute what is missing, print and save its table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from tabulate import tabulate

from bench import report
from bench.commands.request import Request, make_request
from bench.errors import NothingMeasuredError
from bench.launchers.base import Launcher, Progress, survey
from bench.launchers.inline import InlineLauncher
from bench.launchers.local import LocalLauncher, visible_gpus
from bench.plan import Study, describe, plain_config
from bench.store import BLOCKED, DONE, FAILED, Record, Store, read_json, write_json
from bench.view import StudyView

FORMATS = ("md", "csv", "json")


def run_study(args: argparse.Namespace) -> int:
    """Plans, computes what is missing, and prints and saves the table."""
    if args.dry_run:
        return show_plan(args)
    request = make_request(args)
    request.store.check_writable()
    _freeze(request)
    tasks = request.study.tasks()
    missing = [p for p in survey(request.store, tasks, args.retry) if p.state != DONE]
    if missing:
        _announce(request, len(tasks), len(missing))
        with StudyView() as view:
            ended = make_launcher(args, request).launch(tasks, view)
        _explain(request, ended)
    return _finish(request, args)


def _freeze(request: Request) -> None:
    """Writes plan.json and the resolved settings, once: the first plan of a study stands."""
    path = request.folder / "plan.json"
    if not path.exists():
        write_json(path, request.study.to_plain())
        configs = {c.config.arm: plain_config(c.config) for c in request.study.cells}
        (request.folder / "resolved.yaml").write_text(yaml.safe_dump(configs, sort_keys=False))


def _announce(request: Request, total: int, missing: int) -> None:
    print(_arm_table(request.study), file=sys.stderr)
    print(
        f"{missing} of {total} runs to compute; resolved settings in "
        f"{request.folder / 'resolved.yaml'}",
        file=sys.stderr,
    )


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
    gpus = visible_gpus() if args.device in ("auto", "cuda") else []
    cores = len(os.sched_getaffinity(0))
    jobs = args.jobs or len(gpus) or max(1, cores // request.resources.threads)
    return LocalLauncher(request.store, request.resources, jobs, args.retry, gpus)


def _explain(request: Request, ended: Sequence[Progress]) -> None:
    failed = [p for p in ended if p.state == FAILED]
    if failed:
        print(
            f"{len(failed)} run(s) failed. Read one with 'python -m bench.run log "
            f"{failed[0].task.run_id} --out {request.store.root}', then add --retry.",
            file=sys.stderr,
        )


def _finish(request: Request, args: argparse.Namespace) -> int:
    records = collect(request)
    plan = read_json(request.folder / "plan.json")
    done = sum(r.status == DONE for r in records)
    if not done:
        raise NothingMeasuredError("no cell has finished, so there is no table.")
    paths = report.write_report(records, plan, request.folder, FORMATS)
    if args.json:
        print(json.dumps(report.results(records, plan), indent=1))
    else:
        print(report.summary(records, plan))
    print(f"\nsaved: {', '.join(str(p) for p in paths)}", file=sys.stderr)
    return 0 if done == len(request.study.cells) else 1


def collect(request: Request) -> list[Record]:
    """Records of the study's cells; a failed or blocked cell counts, with its failure class."""
    found = []
    for cell in request.study.cells:
        records = request.store.records([cell.run_id])
        found += records or _failed(request.store, cell.run_id, cell.pretrain_id, cell.config)
    return found


def _failed(store: Store, run_id: str, pretrain_id: str, config: Any) -> list[Record]:
    statuses = [store.run(i).status() for i in (pretrain_id, run_id)]
    broken = [s for s in statuses if s["state"] in (FAILED, BLOCKED)]
    if not broken:
        return []
    return [
        Record(
            run_id=run_id,
            pretrain_id=pretrain_id,
            arm=config.arm,
            base_arm=config.base_arm,
            method=config.method,
            plugins=[name for name, _ in config.plugins],
            data=config.data.name,
            model=config.model.name,
            epochs=config.pretrain.epochs,
            seed=config.seed,
            repeat=config.finetune.repeat,
            status=FAILED,
            failure=broken[0].get("failure", ""),
        )
    ]


def show_plan(args: argparse.Namespace) -> int:
    """Prints arms and cells with their ids and states; computes nothing."""
    request = make_request(args)
    states = {p.task.run_id: p.state for p in survey(request.store, request.study.tasks(), False)}
    if args.json:
        print(json.dumps({**request.study.to_plain(), "states": states}, indent=1))
        return 0
    print(_arm_table(request.study))
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
    return 0
