"""One run from its folder to its record: the only place where the parts meet."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench import errors
from bench.data import load
from bench.errors import (
    BenchError,
    DataError,
    NonFiniteLossError,
    RunError,
    StopRequestedError,
    StorageError,
    UsageError,
)
from bench.evaluate.evaluation import Evaluation
from bench.machine import provenance
from bench.machine.allocator import keep_freed_memory
from bench.machine.world import SOLO, World
from bench.plan.config import Resources, RunConfig
from bench.plan.identity import identity, to_plain
from bench.plan.study import PRETRAIN, Task
from bench.store.files import read_json, write_json
from bench.store.folder import RunFolder
from bench.store.record import Record
from bench.store.states import DONE, FAILED, RUNNING, STOPPED
from bench.store.store import Store
from bench.streams import Streams
from bench.train import checkpoint
from bench.train.loop import Session
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining, build_method
from bench.work import released

log = logging.getLogger(__name__)

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS}
"""Error numbers of a disk or file system in trouble."""


def execute(store: Store, task: Task, resources: Resources, world: World = SOLO) -> None:
    """Computes one run, unless it is done; leaves status, log and record in its folder.

    Of several processes the leading one alone writes.

    Raises:
        BusyError: if another process computes it.
        StopRequestedError: if a signal asked to stop; the state is saved.
        Exception: whatever else went wrong, after it has been recorded.
    """
    folder = store.run(task.run_id)
    if not world.leads:
        if world.share(None):
            monitor = Monitor(folder, silent=True)
            with monitor.signals():
                _compute(store, task, resources, Place(monitor, world))
        return
    with folder.lock() as claim:
        if not world.share(not folder.is_done()):
            return
        attempt = int(folder.status().get("attempt", 0)) + 1
        folder.set_status(RUNNING, stage=task.stage, attempt=attempt, started=time.time())
        folder.set_status(RUNNING, failure="", message="")
        monitor = Monitor(folder, resources.checkpoint_every_s, claim=claim)
        with monitor.signals(), _logging_to(folder):
            _guarded(monitor, lambda: _compute(store, task, resources, Place(monitor, world)))


def _guarded(monitor: Monitor, compute: Callable[[], None]) -> None:
    """Runs ``compute`` and records how it ended; the run boundary."""
    try:
        compute()
    except StopRequestedError as stop:
        log.warning("%s", stop)
        monitor.folder.set_status(STOPPED, message=str(stop))
        raise
    except Exception as error:
        log.error("run failed\n%s", traceback.format_exc())
        _record_failure(monitor, error)
        raise
    monitor.folder.set_status(DONE)


def _record_failure(monitor: Monitor, error: Exception) -> None:
    """Writes the failure into the run's folder, if the folder is still there and has room."""
    if monitor.folder.claim() != monitor.claim:
        return
    failure, message = classify(error), str(error)[:500]
    try:
        monitor.folder.set_status(FAILED, failure=failure, message=message)
    except OSError as trouble:
        log.error("the failure could not be recorded: %s", trouble)


def classify(error: Exception) -> str:
    """The failure class of an exception, one of :data:`bench.errors.REMEDIES`."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        return errors.OOM
    if isinstance(error, NonFiniteLossError):
        return errors.NON_FINITE
    if isinstance(error, StorageError) or getattr(error, "errno", None) in MACHINE_ERRORS:
        return errors.NODE
    if isinstance(error, OSError | BenchError) and not isinstance(error, RunError):
        return errors.DATA
    return errors.CODE


@dataclass(frozen=True)
class Place:
    """Where a run reports to, and the processes that compute it."""

    monitor: Monitor
    world: World


def _compute(store: Store, task: Task, resources: Resources, place: Place) -> None:
    monitor, world = place.monitor, place.world
    device = pick_device(resources.device)
    threads = settle(resources)
    config, folder = task.config, monitor.folder
    session = Session(
        device=device,
        streams=Streams(config.suite_seed, config.seed),
        monitor=monitor,
        micro_batch=resources.micro_batch,
        workers=resources.workers,
        world=world,
    )
    images = load.load(config, resources.data_root, resources.strict_images)
    _check_images(images.fingerprint(), folder, store.run(task.parent) if task.parent else folder)
    facts = {**provenance.hardware(device, threads), "processes": world.size}
    origin = {
        "code": provenance.code(),
        "versions": provenance.versions(),
        "hardware": facts,
        "data": images.fingerprint(),
        "resources": {**to_plain(resources), "data_root": "", "init_path": ""},
    }
    if world.leads:
        write_json(folder.path / "provenance.json", origin)
    if task.stage == PRETRAIN and config.init:
        result = _import(folder, task, resources.init_path, world)
    elif task.stage == PRETRAIN:
        result = _pretrain(Pretraining(build_method(config), images, config, session), threads)
    else:
        weights = checkpoint.load_weights(store.run(task.parent).encoder)
        scores = Evaluation(build_method(config), weights, images, config, session).run()
        result = _record(task, store.run(task.parent), scores, origin)
    if world.leads:
        _leave_result(monitor, result, images.notes())


def _check_images(here: str, *folders: RunFolder) -> None:
    """Raises: DataError: if the run, or the pre-training it builds on, saw other images."""
    for folder in folders:
        if folder.images() not in ("", here):
            raise DataError(
                f"run {folder.run_id} saw other images ({folder.images()}) than the data folder "
                f"holds now ({here}). Restore the data set or choose another --out."
            )


def _leave_result(monitor: Monitor, result: dict[str, Any], notes: list[str]) -> None:
    """Writes the result, the last act of a run, and removes the states that led to it."""
    monitor.check()
    folder = monitor.folder
    for note in notes:
        log.warning("%s", note)
    known = [n for n in result.get("notes", []) if n not in notes]
    write_json(folder.path / "record.json", {**result, "notes": known + notes})
    for states in folder.checkpoints.glob("*"):
        checkpoint.clear(states)


def settle(resources: Resources) -> int:
    """Gives this process its CPU threads and lets it keep freed memory; returns the threads."""
    threads = resources.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    return threads


def pick_device(name: str) -> torch.device:
    """The device named, or for ``auto`` a GPU when there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _pretrain(pretraining: Pretraining, threads: int) -> dict[str, Any]:
    module: Any = pretraining.method
    session = pretraining.session
    module.to(session.device).train()
    result = pretraining.run()
    folder = session.monitor.folder
    if session.world.leads:
        session.monitor.check()
        checkpoint.save_weights(folder.encoder, pretraining.method.encoder().state_dict())
        checkpoint.save_weights(folder.path / "method.safetensors", module.state_dict())
    units = session.world.size * (1 if session.device.type == "cuda" else threads)
    result["device_hours"] = result["pretrain_s"] * units / 3600
    return {"stage": PRETRAIN, "run_id": folder.run_id, **result}


def _import(folder: RunFolder, task: Task, path: str, world: World) -> dict[str, Any]:
    """Takes a given checkpoint's encoder in place of a pre-training.

    Raises:
        UsageError: if the file is not the one that was planned, or does not fit the model.
    """
    config = task.config
    if released.fingerprint(Path(path)) != config.init:
        raise UsageError(f"'{path}' is not the checkpoint that was planned ({config.init}).")
    weights = released.encoder_weights(build_method(config), Path(path))
    if world.leads:
        checkpoint.save_weights(folder.encoder, weights)
    notes = [f"encoder imported, not pre-trained here: {Path(path).name}, {config.init}"]
    return {"stage": PRETRAIN, "run_id": folder.run_id, "notes": notes}


def _record(task: Task, parent: RunFolder, scores: dict[str, Any], origin: Any) -> dict[str, Any]:
    """A cell's result; code and hardware are those of its pre-training, which its times are of."""
    config: RunConfig = task.config
    here, origin = origin, read_json(parent.path / "provenance.json") or origin
    measured = dict(parent.result() or {})
    if here["code"]["commit"] != origin["code"]["commit"]:
        note = f"evaluated with other code than pre-trained: {here['code']['commit'][:10]}"
        measured["notes"] = [*measured.get("notes", []), note]
    measured.pop("stage", None)
    measured.pop("run_id", None)
    record = Record(
        run_id=task.run_id,
        pretrain_id=task.parent,
        **identity(config),
        device=origin["hardware"]["device"],
        commit=origin["code"]["commit"],
        dirty=bool(origin["code"]["dirty"] or here["code"]["dirty"]),
        hardware=provenance.hardware_label(origin["hardware"]),
        versions=origin["versions"],
        **measured,
        **scores,
    )
    return asdict(record)


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
