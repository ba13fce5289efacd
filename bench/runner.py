"""One run from its folder to its record: the only place where the parts meet."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import checkpoint, data, provenance, released
from bench.config import Resources, RunConfig, recipe_digest, to_plain
from bench.errors import BenchError, NonFiniteLossError, RunError, StopRequestedError, UsageError
from bench.evaluate import Evaluation
from bench.loop import Session
from bench.monitor import Monitor
from bench.plan import PRETRAIN, Task
from bench.store import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    Record,
    RunFolder,
    Store,
    save_record,
    write_json,
)
from bench.streams import Streams
from bench.train import Pretraining, build_method

log = logging.getLogger(__name__)


def execute(store: Store, task: Task, resources: Resources) -> None:
    """Computes one run, unless it is done; leaves status, log and record in its folder.

    Raises:
        StoreError: if another process computes it.
        StopRequestedError: if a signal asked to stop; the state is saved.
        Exception: whatever else went wrong, after it has been recorded.
    """
    folder = store.run(task.run_id)
    with folder.lock():
        if folder.is_done():
            return
        attempt = int(folder.status().get("attempt", 0)) + 1
        folder.set_status(RUNNING, stage=task.stage, attempt=attempt, started=time.time())
        folder.set_status(RUNNING, failure="", message="")
        monitor = Monitor(folder, resources.checkpoint_every_s)
        with monitor.signals(), _logging_to(folder):
            _guarded(folder, lambda: _compute(store, task, resources, monitor))


def _guarded(folder: RunFolder, compute: Callable[[], None]) -> None:
    """Runs ``compute`` and records how it ended; the run boundary."""
    try:
        compute()
    except StopRequestedError as stop:
        folder.set_status(STOPPED, message=str(stop))
        raise
    except Exception as error:
        log.error("run failed\n%s", traceback.format_exc())
        folder.set_status(FAILED, failure=classify(error), message=str(error)[:500])
        raise
    folder.set_status(DONE)


def classify(error: Exception) -> str:
    """The failure class of an exception: oom, non-finite, data, or code."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "oom"
    if isinstance(error, NonFiniteLossError):
        return "non-finite"
    if isinstance(error, OSError | BenchError) and not isinstance(error, RunError):
        return "data"
    return "code"


def _compute(store: Store, task: Task, resources: Resources, monitor: Monitor) -> None:
    device = pick_device(resources.device)
    threads = resources.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    config, folder = task.config, monitor.folder
    session = Session(
        device=device,
        streams=Streams(config.suite_seed, config.seed),
        monitor=monitor,
        micro_batch=resources.micro_batch,
        workers=resources.workers,
        keep_checkpoints=resources.keep_checkpoints,
    )
    images = data.load(config, resources.data_root)
    facts = provenance.hardware(device, threads)
    origin = {
        "code": provenance.code(),
        "versions": provenance.versions(),
        "hardware": facts,
        "data": images.fingerprint(),
        "resources": {**to_plain(resources), "data_root": "", "init_path": ""},
    }
    write_json(folder.path / "provenance.json", origin)
    if task.stage == PRETRAIN and config.init:
        _import(folder, task, resources.init_path)
    elif task.stage == PRETRAIN:
        _pretrain(folder, Pretraining(build_method(config), images, config, session), threads)
    else:
        parent = store.run(task.parent)
        weights = checkpoint.load_weights(parent.encoder)
        evaluation = Evaluation(build_method(config), weights, images, config, session)
        save_record(folder, _record(task, parent, evaluation.run(), origin))
    for stage in ("pretrain", "finetune", "probe"):
        checkpoint.clear(folder.checkpoints / stage)


def pick_device(name: str) -> torch.device:
    """The device named, or for ``auto`` a GPU when there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _pretrain(folder: RunFolder, pretraining: Pretraining, threads: int) -> None:
    module: Any = pretraining.method
    module.to(pretraining.session.device).train()
    result = pretraining.run()
    checkpoint.save_weights(folder.encoder, pretraining.method.encoder().state_dict())
    checkpoint.save_weights(folder.path / "method.safetensors", module.state_dict())
    units = 1 if pretraining.session.device.type == "cuda" else threads
    result["device_hours"] = result["pretrain_s"] * units / 3600
    write_json(folder.path / "record.json", {"stage": PRETRAIN, "run_id": folder.run_id, **result})


def _import(folder: RunFolder, task: Task, path: str) -> None:
    """Takes a given checkpoint's encoder in place of a pre-training.

    Raises:
        UsageError: if the file is not the one that was planned, or does not fit the model.
    """
    config = task.config
    if released.fingerprint(Path(path)) != config.init:
        raise UsageError(f"'{path}' is not the checkpoint that was planned ({config.init}).")
    weights = released.encoder_weights(build_method(config), Path(path))
    checkpoint.save_weights(folder.encoder, weights)
    notes = [f"encoder imported, not pre-trained here: {Path(path).name}, {config.init}"]
    write_json(
        folder.path / "record.json", {"stage": PRETRAIN, "run_id": folder.run_id, "notes": notes}
    )


def _record(task: Task, parent: RunFolder, scores: dict[str, Any], origin: Any) -> Record:
    config: RunConfig = task.config
    measured = dict(parent.result() or {})
    measured.pop("stage", None)
    measured.pop("run_id", None)
    return Record(
        run_id=task.run_id,
        pretrain_id=task.parent,
        arm=config.arm,
        base_arm=config.base_arm,
        method=config.method,
        plugins=[name for name, _ in config.plugins],
        data=config.data.name,
        model=config.model.name,
        epochs=config.pretrain.epochs,
        seed=config.seed,
        repeat=config.finetune.repeat,
        device=origin["hardware"]["device"],
        recipe=recipe_digest(config),
        commit=origin["code"]["commit"],
        dirty=bool(origin["code"]["dirty"]),
        hardware=provenance.hardware_label(origin["hardware"]),
        versions=origin["versions"],
        **measured,
        **scores,
    )


class _logging_to:
    """Sends this process's log records to the run's log file while the block runs."""

    def __init__(self, folder: RunFolder) -> None:
        self.handler = logging.FileHandler(folder.log)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self.handler)

    def __exit__(self, *exc: object) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
