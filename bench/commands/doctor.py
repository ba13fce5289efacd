"""``doctor``: what a study needs, tried out, each finding with what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench import registry
from bench.commands.cluster import site_of
from bench.commands.flags import add_out_flag, add_slurm_flags, site_settings
from bench.errors import BenchError, SchedulerError
from bench.launch.local import visible_gpus
from bench.launch.slurm import scheduler
from bench.launch.slurm.node import ask_node
from bench.library import Means, Wish, check_means, outline
from bench.machine import provenance
from bench.machine.cores import usable_cores
from bench.store.folder import RunFolder
from bench.store.store import Store
from bench.train.monitor import Monitor

OK, WARN, BAD = "ok", "warn", "bad"
SPACE_WANTED_GIB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: ``state`` is ok, warn or bad."""

    what: str
    state: str
    detail: str


def doctor(args: argparse.Namespace) -> int:
    """Tries everything a study needs; exit code 1 if something is bad.

    Raises:
        UsageError: for flags that the launcher would not read.
    """
    settings = site_settings(args)
    check_means(
        Means(launcher=args.launcher, site=args.site, detach=args.detach, settings=settings)
    )
    findings = [f for check in _checks(args) for f in _tried(check, args)]
    if args.json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        print(tabulate([[f.state, f.what, f.detail] for f in findings], tablefmt="plain"))
    return int(any(f.state == BAD for f in findings))


Check = Callable[[argparse.Namespace], Iterator[Finding]]


def _checks(args: argparse.Namespace) -> list[Check]:
    local: list[Check] = [_versions, _folder, _devices, _signals, _data]
    return [*local, _scheduler, _compute_node] if args.launcher == "slurm" else local


def _tried(check: Check, args: argparse.Namespace) -> list[Finding]:
    try:
        return list(check(args))
    except (BenchError, OSError) as error:
        return [Finding(check.__name__.strip("_").replace("_", " "), BAD, str(error))]


def _versions(args: argparse.Namespace) -> Iterator[Finding]:
    found = provenance.versions()
    yield Finding("versions", OK, ", ".join(f"{k} {v}" for k, v in found.items()))
    if "torch" not in found:
        yield Finding("torch", BAD, "not installed: pip install -e .")
    code = provenance.code()
    state = WARN if code["dirty"] else OK
    yield Finding("code", state, f"commit {code['commit']}" + " with changes" * bool(code["dirty"]))


def _folder(args: argparse.Namespace) -> Iterator[Finding]:
    store = Store(Path(args.out))
    store.check_writable()
    space = os.statvfs(store.root)
    free = space.f_bavail * space.f_frsize / 2**30
    state = OK if free >= SPACE_WANTED_GIB else WARN
    yield Finding("folder", state, f"{store.root} can be written, {free:.1f} GiB free")
    probe = RunFolder(store.root / f".doctor.{os.getpid()}")
    with probe.lock():
        held = probe.is_locked()
    (probe.path / "run.lock").unlink()
    probe.path.rmdir()
    detail = "work" if held else "do not work here: two commands could compute one run twice"
    yield Finding("file locks", OK if held else BAD, detail)


def _devices(args: argparse.Namespace) -> Iterator[Finding]:
    import torch

    gpus = visible_gpus()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = usable_cores()
    if names:
        yield Finding("devices", OK, f"{cores} cores; GPUs: {', '.join(names)}")
    elif gpus:
        yield Finding("devices", BAD, f"{len(gpus)} GPU(s) here, but torch sees none: check driver")
    else:
        yield Finding("devices", OK, f"{cores} cores, {provenance.cpu_name()}; no GPU")


def _signals(args: argparse.Namespace) -> Iterator[Finding]:
    for number in (signal.SIGTERM, signal.SIGUSR2):
        monitor = Monitor(RunFolder(Path(args.out)))
        with monitor.signals():
            os.kill(os.getpid(), number)
        heard = monitor.stopping == number.name
        detail = "saves the state and stops" if heard else "is not delivered"
        yield Finding(number.name, OK if heard else BAD, detail)


def _data(args: argparse.Namespace) -> Iterator[Finding]:
    from bench.data import load

    settings = [*args.overrides, "pretrain.warmup_epochs=0"]  # one epoch has no room for more
    wish = Wish(methods="mae", epochs="1", seeds="1", data=args.data or "digits", settings=settings)
    request = outline(wish, args.out, Means())
    config = request.study.cells[0].config
    name, images = config.data.name, load.load(config, request.resources.data_root)
    images.train.open(0), images.test.open(0)
    counts = " and ".join(f"{len(split)} {part}" for part, split in images.parts.items())
    yield Finding("data", OK, f"{name}: {counts} images, {images.classes} classes")
    for note in images.notes():
        yield Finding("data", WARN, note)


def _scheduler(args: argparse.Namespace) -> Iterator[Finding]:
    scheduler.check_tools()
    version = scheduler.call(["sinfo", "--version"]).strip()
    yield Finding("scheduler", OK, f"{version}, MaxArraySize {scheduler.this_cluster().max_array}")
    accounting = scheduler.has_accounting()
    detail = "sacct answers" if accounting else "no sacct: ended jobs are judged by their files"
    yield Finding("accounting", OK if accounting else WARN, detail)
    partitions = scheduler.call(["sinfo", "-h", "-o", "%R"]).split()
    wanted = site_of(args).partition
    if wanted and wanted not in partitions:
        known = ", ".join(sorted(set(partitions)))
        yield Finding("partition", BAD, f"no partition '{wanted}'. Known: {known}")


def _compute_node(args: argparse.Namespace) -> Iterator[Finding]:
    """A job that reads what was written here, and waits for the signal ahead of a time limit."""
    begun = time.monotonic()
    print("waiting for a small job on a compute node (Ctrl-C gives up) ...", file=sys.stderr)
    seen: dict[str, Any] = ask_node(Path(args.out), site_of(args))
    if not seen:
        raise SchedulerError("the job left no answer: --out is not shared with the compute nodes")
    waited = time.monotonic() - begun
    yield Finding("compute node", OK, f"answered after {waited:.0f} s, {seen['cores']} cores")
    shared = seen["read"] == "written here"
    detail = "read and written on both sides" if shared else "written here, not seen there"
    yield Finding("shared folder", OK if shared else BAD, detail)
    state = OK if seen["signal"] else BAD
    yield Finding("SIGUSR2 in a job", state, "arrives" if seen["signal"] else "does not arrive")
    gpus, wanted = seen["gpus"], site_of(args).gpus_per_node
    yield Finding("GPUs in a job", OK if gpus >= min(wanted, 1) else BAD, f"{gpus} of {wanted}")
    same = seen["versions"] == provenance.versions()
    detail = "as here" if same else ", ".join(f"{k} {v}" for k, v in seen["versions"].items())
    yield Finding("versions in a job", OK if same else WARN, detail)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``doctor`` takes."""
    add_out_flag(parser)
    parser.add_argument("--launcher", choices=registry.LAUNCHERS.names(), default="local")
    parser.add_argument("--data", default=None, metavar="NAME[:DIR]", help="data set to open")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_slurm_flags(parser.add_argument_group("with --launcher slurm"))
