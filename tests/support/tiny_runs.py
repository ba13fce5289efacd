"""Tiny runs in processes of their own that can be killed at a chosen place."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import BusyError, StopRequestedError
from bench.launch.local import PRELOADED
from bench.plan import resolve, typed
from bench.plan.config import Resources
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.layers import load_preset
from bench.plan.study import CELL, PRETRAIN, Task
from bench.store.store import Store

BASES = ("mae", "simmim", "data2vec", "bootmae", "conmim")
METHODS = tuple(f"{base}{plugin}" for base in BASES for plugin in ("", "+mto"))

TINY = [
    "data.train_images=24",
    "data.test_images=16",
    "data.classes=4",
    "data.labels=0",
    "simmim.mask_patch_size=2",
    "model.image_size=8",
    "model.patch_size=2",
    "model.width=24",
    "model.depth=2",
    "model.heads=2",
    "pretrain.batch_size=8",
    "pretrain.precision=fp32",
    "pretrain.augment.flip=0.5",
    "finetune.epochs=2",
    "finetune.draws=2",
    "finetune.warmup_epochs=0",
    "finetune.batch_size=10",
    "finetune.drop_path=0.2",
    "finetune.mixup=0.8",
    "finetune.cutmix=1.0",
    "probe.epochs=2",
    "probe.warmup_epochs=0",
    "probe.batch_size=10",
    "mae.decoder_width=16",
    "mae.decoder_depth=2",
    "mae.decoder_heads=2",
    "data2vec.target_layers=2",
    "bootmae.decoder_width=16",
    "conmim.mask_patch_size=2",
    "conmim.norm_images=2",
    "conmim.projector_width=32",
    "conmim.projector_out=16",
]
CLOCKS = {"pretrain_s", "seconds", "images_per_s", "device_hours", "data_wait_share"}
MACHINE = {"peak_memory_mib", "commit", "dirty", "notes"}

QUICK = Resources(device="cpu", threads=1, checkpoint_every_s=0.0)
"""Saves a state after every step."""

Fault = Callable[[], None]


@cache
def tasks(arm: str, epochs: int = 2) -> tuple[Task, Task]:
    """The pre-training and the evaluation of a tiny cell."""
    layers = (*load_preset("procedural"), typed.parse_overrides(TINY))
    config = resolve.Resolver(layers, 0).resolve(typed.parse_arms([arm])[0], epochs, 0)
    pre, fin = pretrain_id(config), cell_id(config)
    return Task(PRETRAIN, pre, config), Task(CELL, fin, config, pre)


def _body(root: Path, task: Task, resources: Resources, fault: Fault | None) -> None:
    from bench.work.runner import execute

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    if fault is not None:
        fault()
    try:
        execute(Store(root), task, resources)
    except StopRequestedError as stop:
        sys.exit(stop.exit_code)
    except BusyError:
        sys.exit(75)
    except Exception:
        sys.exit(1)


@cache
def forked() -> Any:
    """Processes from a server that has imported what takes long.

    There is one server a test process, and what it imports is settled when it starts: whoever
    forks a process takes this, or every later one imports PyTorch anew.
    """
    context = multiprocessing.get_context("forkserver")
    models = ("baselines.mae.model", "baselines.data2vec.model")
    context.set_forkserver_preload([*PRELOADED, *models])
    return context


def _exit_with(function: Callable[..., int], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a launcher forks is deaf to it
    sys.exit(function(*arguments))


def in_process(function: Callable[..., int], *arguments: Any) -> Any:
    """Starts a function in a process of its own; what it returns is the exit code."""
    process = forked().Process(target=_exit_with, args=(function, *arguments))
    process.start()
    return process


def start(root: Path, task: Task, resources: Resources = QUICK, fault: Fault | None = None) -> Any:
    """Starts a run in its own process; ``fault`` prepares what is to go wrong there."""
    process = forked().Process(target=_body, args=(root, task, resources, fault))
    process.start()
    return process


def run(
    root: Path, task: Task, resources: Resources = QUICK, fault: Fault | None = None
) -> int | None:
    """Exit code of a run; minus the signal that killed it."""
    process = start(root, task, resources, fault)
    process.join(120)
    return process.exitcode


class KillAt:
    """SIGKILL once a stage has done ``step`` steps, before that state is saved."""

    def __init__(self, stage: str, step: int, number: int = signal.SIGKILL) -> None:
        self.stage, self.step, self.number = stage, step, number

    def __call__(self) -> None:
        from bench.train.monitor import Monitor

        beat = Monitor.beat

        def killing(monitor: Monitor, stage: str, step: int, *rest: Any) -> None:
            beat(monitor, stage, step, *rest)
            if (stage, step) == (self.stage, self.step):
                os.kill(os.getpid(), self.number)

        Monitor.beat = killing  # type: ignore[method-assign]


class Clock:
    """A wall clock that is a day ahead and a day behind by turns, each for some looks at it."""

    DAY, LOOKS = 86_400.0, 3

    def __init__(self, then: Fault | None = None) -> None:
        self.then, self.looks = then, 0

    def __call__(self) -> None:
        real = time.time

        def jumping() -> float:
            turn, self.looks = self.looks // self.LOOKS, self.looks + 1
            return real() + (-self.DAY if turn % 2 else self.DAY)

        time.time = jumping
        if self.then is not None:
            self.then()


class KillInWrite:
    """SIGKILL in the middle of writing the state after ``step`` steps.

    ``torn`` leaves the half-written file under its final name, as a power cut may.
    """

    def __init__(self, stage: str, step: int, torn: bool) -> None:
        self.name, self.stage, self.torn = f"step-{step:09d}.pt", stage, torn

    def __call__(self) -> None:
        from bench.train import checkpoint

        write = checkpoint.write_bytes

        def killing(path: Path, data: bytes) -> None:
            if path.name == self.name and path.parent.name == self.stage:
                target = path if self.torn else path.parent / f".{path.name}.x1y2"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, data)

        checkpoint.write_bytes = killing  # type: ignore[assignment]


def outcome(root: Path, task: Task) -> dict[str, Any]:
    """All that must not depend on interruptions: weights as bytes, metrics and record."""
    folder = Store(root).run(task.run_id)
    record = {k: v for k, v in (folder.result() or {}).items() if k not in CLOCKS | MACHINE}
    files = sorted(folder.path.glob("*.safetensors"))
    return {
        "record": record,
        "metrics": sorted(json.dumps(m, sort_keys=True) for m in folder.metrics()),
        "weights": {f.name: f.read_bytes() for f in files},
    }


def slow(resources: Resources = QUICK) -> Resources:
    """The same without periodic states."""
    return replace(resources, checkpoint_every_s=1e9)
