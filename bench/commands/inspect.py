"""Looking at what is there: status, report, log, ls."""

from __future__ import annotations

import argparse
from pathlib import Path

from tabulate import tabulate

from bench import registry
from bench.commands.cluster import scheduled_states
from bench.errors import NothingMeasuredError, remedy, unknown
from bench.plan import layers
from bench.store.states import DONE
from bench.store.store import Store


def show_status(args: argparse.Namespace) -> int:
    """Prints the state of every run in the folder."""
    store = Store(Path(args.out))
    jobs = scheduled_states(store)
    rows = []
    for folder in store.folders():
        status = folder.status()
        state = DONE if folder.is_done() else jobs.get(folder.run_id, status["state"])
        step = f"{status['step']}/{status['total']}" if "total" in status else ""
        rows.append(
            [folder.run_id, state, status.get("stage", ""), step, status.get("message", "")]
        )
    if not rows:
        raise NothingMeasuredError(f"no runs in '{store.runs}'.")
    print(tabulate(rows, ["run", "state", "stage", "step", "message"], tablefmt="simple"))
    return 0


def show_log(args: argparse.Namespace) -> int:
    """Prints a run's log."""
    store = Store(Path(args.out))
    ids = [f.run_id for f in store.folders()]
    found = [i for i in ids if i.startswith(args.run)]
    if len(found) != 1 and args.run not in found:
        raise unknown("run", args.run, found[:8] or ids[:8], "Give enough of the id to be unique.")
    folder = store.run(args.run if args.run in found else found[0])
    status = folder.status()
    print(f"{folder.run_id}: {status['state']} {status.get('message', '')}".rstrip())
    if status.get("failure"):
        print(f"{status['failure']}: {remedy(status['failure'])}")
    if folder.log.exists():
        print(folder.log.read_text(), end="")
    return 0


def show_list(args: argparse.Namespace) -> int:
    """Prints the known names of a kind."""
    if args.kind in ("methods", "plugins", "datasets"):
        names = registry.names(args.kind)
    elif args.kind == "presets":
        names = layers.preset_names()
    elif args.kind == "runs":
        names = [f.run_id for f in Store(Path(args.out)).folders()]
    else:
        kinds = ("methods", "plugins", "datasets", "presets", "runs")
        raise unknown("kind", args.kind, kinds)
    print("\n".join(names))
    return 0
