"""One run from its folder to its record: the only place where the parts meet."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.data import load
from bench.data.gate import check_budget
from bench.errors import StopRequestedError
from bench.evaluate.encoder import Encoder
from bench.evaluate.evaluation import evaluate
from bench.machine import provenance
from bench.machine.device import settle
from bench.machine.world import SOLO, World
from bench.plan.config import Resources
from bench.plan.identity import to_plain
from bench.plan.study import PRETRAIN, Task, plain_config
from bench.store.files import write_json
from bench.store.folder import RunFolder
from bench.store.scores import KeptScores
from bench.store.states import DONE, FAILED, RUNNING, STOPPED
from bench.store.store import Store
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from bench.train.trackers import Trackers, result_line
from bench.work.failure import classify
from bench.work.result import (
    check_images,
    encoder_of,
    import_encoder,
    leave_correct,
    leave_result,
    pretrain,
    record_of,
)
from bench.work.session import session_of

log = logging.getLogger(__name__)


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
        store.register(task)
        attempt = int(folder.status().get("attempt", 0)) + 1
        folder.set_status(RUNNING, stage=task.stage, attempt=attempt, started=time.time())
        folder.set_status(RUNNING, failure="", message="")
        monitor = Monitor(folder, resources.checkpoint_every_s, claim=claim)
        with monitor.signals(), _logging_to(folder), _tracked(monitor, task, resources):
            _guarded(monitor, lambda: _compute(store, task, resources, Place(monitor, world)))


@contextlib.contextmanager
def _tracked(monitor: Monitor, task: Task, resources: Resources) -> Iterator[None]:
    """Hands what the run logs to the trackers asked for while the block runs."""
    names = resources.trackers
    trackers = Trackers(names, monitor.folder.path, plain_config(task.config) if names else {})
    monitor.trackers = trackers
    try:
        yield
    finally:
        trackers.close()


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
    failure, message = classify(error, monitor.folder.path), str(error)[:500]
    try:
        monitor.folder.set_status(FAILED, failure=failure, message=message)
    except OSError as trouble:
        log.error("the failure could not be recorded: %s", trouble)


@dataclass(frozen=True)
class Place:
    """Where a run reports to, and the processes that compute it."""

    monitor: Monitor
    world: World


def _compute(store: Store, task: Task, resources: Resources, place: Place) -> None:
    monitor, world = place.monitor, place.world
    threads = settle(resources)
    config, folder = task.config, monitor.folder
    session = session_of(config, resources, monitor, world)
    images = load.load(config, resources.data_root, resources.strict_images)
    check_budget(images.train.labels, config)
    seen = images.fingerprint()
    check_images(seen, folder, store.run(task.parent) if task.parent else folder)
    images = images.kept()
    facts = {**provenance.hardware(session.device, threads), "processes": world.size}
    facts |= {"compiled": True} if resources.compile else {}
    origin: dict[str, Any] = {
        "code": provenance.code(),
        "versions": provenance.versions(),
        "hardware": facts,
        "data": seen,
        "resources": {**to_plain(resources), "data_root": "", "init_path": ""},
    }
    if world.leads:
        write_json(folder.path / "provenance.json", origin)
    if task.stage == PRETRAIN and config.init:
        result = import_encoder(folder, task, resources.init_path, world)
    elif task.stage == PRETRAIN:
        result = pretrain(Pretraining(build_method(config), images, config, session), threads)
    else:
        weights = encoder_of(store.run(task.parent), config)
        encoder = Encoder(build_method(config), weights, images, config, session)
        parent = store.run(task.parent)
        scores = evaluate(encoder, KeptScores(parent), _by(origin))
        result = record_of(task, parent, scores, origin)
        if world.leads:
            leave_correct(monitor, scores)
    if world.leads:
        leave_result(monitor, result, images.notes())
        if task.stage != PRETRAIN and monitor.trackers is not None:
            monitor.trackers.log(result_line(result))


def _by(origin: dict[str, Any]) -> dict[str, Any]:
    """Which code a score is computed by."""
    return {"commit": origin["code"]["commit"], "dirty": bool(origin["code"]["dirty"])}


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
