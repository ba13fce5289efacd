"""Scores added to cells that are done: computed beside them, then put into their records."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bench import registry
from bench.data import load
from bench.data.gate import check_budget
from bench.errors import StopRequestedError, StorageError, StoreError
from bench.evaluate.encoder import Encoder
from bench.evaluate.evaluation import evaluate
from bench.machine import provenance
from bench.machine.device import settle
from bench.plan import resolve
from bench.plan.config import Resources, RunConfig, Settings
from bench.plan.identity import score_key
from bench.store.correct import FILE as CORRECT
from bench.store.correct import read_correct
from bench.store.files import write_json
from bench.store.folder import RunFolder
from bench.store.record import Record, load_record
from bench.store.scores import KeptScore, KeptScores
from bench.store.shapes import read_state
from bench.store.store import Store
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.work.result import check_images, encoder_of
from bench.work.session import session_of

log = logging.getLogger(__name__)


def add_scores(
    store: Store, folder: RunFolder, tasks: Mapping[str, Settings], resources: Resources
) -> dict[str, float]:
    """Adds the tasks that a cell has no score of to its record; all scores of the tasks.

    The cell keeps its id and everything its record says, beside a note where other code computes;
    a score that is there stays.

    Raises:
        BusyError: if the cell is being computed.
        UsageError: if a recipe does not fit the encoder.
        StorageError: if the encoder's weights are lost.
        DamagedError: if the cell's flags of right and wrong images cannot be read.
        StopRequestedError: if a signal asked to stop; what was computed is kept.
    """
    with folder.lock():
        found = _config(folder)
        parent = store.run(str((folder.config() or {})["parent"]))
        record = load_record(folder)
        if record is None:
            raise StoreError(f"'{folder.path}' holds no finished cell.")
        lacking = {n: r for n, r in tasks.items() if registry.endpoint(n) not in record.scores}
        for name in tasks.keys() - lacking.keys():
            _tell_kept(folder, record, found, name, tasks[name])
        if lacking:
            read_correct(folder)  # before anything is computed
            config = replace(found, tasks=tuple(lacking.items()))
            record = _put(folder, record, config, _compute(config, parent, resources))
    return {name: record.scores[registry.endpoint(name)] for name in tasks}


def _tell_kept(
    folder: RunFolder, record: Record, config: RunConfig, name: str, recipe: Settings
) -> None:
    """Says so where the score that is there is of another recipe than the one asked for."""
    known = record.added.get(registry.endpoint(name))
    if known is None and name in dict(config.tasks):
        known = score_key(config, name)
    if known not in (None, score_key(replace(config, tasks=((name, recipe),)), name)):
        log.warning("%s: its score of '%s' is of another recipe, and stays", folder.run_id, name)


def _config(folder: RunFolder) -> RunConfig:
    kept = folder.config()
    if kept is None:
        raise StoreError(f"'{folder.path}' has no config.json, so its encoder is not known.")
    return resolve.run_from_plain(kept["config"])


def _compute(config: RunConfig, parent: RunFolder, resources: Resources) -> dict[str, KeptScore]:
    """The scores, kept beside the encoder; states of what trains lie elsewhere until it ends."""
    settle(resources)
    images = load.load(config, resources.data_root, resources.strict_images)
    check_budget(images.train.labels, config)
    check_images(images.fingerprint(), parent)
    images = images.kept()
    code = provenance.code()
    with tempfile.TemporaryDirectory() as place:
        monitor = Monitor(RunFolder(Path(place)), silent=True)
        session = session_of(config, resources, monitor)
        weights = _weights(parent, config)
        encoder = Encoder(build_method(config), weights, images, config, session)
        by: dict[str, Any] = {"commit": code["commit"], "dirty": bool(code["dirty"])}
        with monitor.signals():
            found = evaluate(encoder, KeptScores(parent), by)
        if monitor.stopping:
            raise StopRequestedError(f"stopped by {monitor.stopping}; the same command goes on.")
        return found


def _weights(parent: RunFolder, config: RunConfig) -> dict[str, Tensor]:
    """The encoder's; where they are lost, what computes them anew: a cell that is done does not."""
    try:
        return encoder_of(parent, config)
    except StorageError as error:
        raise StorageError(
            f"the weights of {parent.run_id} are not here. Put its files back, or remove its "
            "record.json and this cell's and give the study's command: it computes both anew."
        ) from error


def _put(
    folder: RunFolder, record: Record, config: RunConfig, scores: Mapping[str, KeptScore]
) -> Record:
    """Into the record, last and at once; what it says already stays."""
    ends = {name: registry.endpoint(name) for name in scores}
    bits = {ends[n]: s.correct for n, s in scores.items() if s.correct}
    write_json(folder.path / CORRECT, {**(read_state(folder.path / CORRECT) or {}), **bits})
    others = sorted({s.commit[:10] for s in scores.values()} - {record.commit[:10]})
    said = [f"{', '.join(scores)} added by other code: {', '.join(others)}"] if others else []
    seconds = {n: s.seconds for n, s in scores.items() if s.seconds is not None}
    more = replace(
        record,
        scores={**{ends[n]: s.top1 for n, s in scores.items()}, **record.scores},
        seconds={**seconds, **record.seconds},
        dirty=record.dirty or any(s.dirty for s in scores.values()),
        notes=[*record.notes, *said],
        added={**{ends[n]: score_key(config, n) for n in scores}, **record.added},
    )
    write_json(folder.path / "record.json", asdict(more))
    return more
