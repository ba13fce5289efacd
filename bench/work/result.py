"""What a run leaves: its weights and its record."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bench import registry
from bench.data.listing import same_images
from bench.errors import DamagedError, DataError, StorageError, UsageError
from bench.machine import provenance
from bench.machine.world import World
from bench.plan.config import RunConfig
from bench.plan.study import PRETRAIN, Task
from bench.store.correct import write_correct
from bench.store.files import set_aside, write_json
from bench.store.folder import RunFolder
from bench.store.record import blank, measured
from bench.store.scores import KeptScore
from bench.train import checkpoint
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from bench.work import released

log = logging.getLogger(__name__)


def check_images(here: str, *folders: RunFolder) -> None:
    """Refuses a run if it, or the pre-training it builds on, saw other images than ``here``.

    Raises:
        DataError: naming the run.
    """
    for folder in folders:
        if folder.images() and not same_images(folder.images(), here):
            raise DataError(
                f"run {folder.run_id} saw other images ({folder.images()}) than the data folder "
                f"holds now ({here}). Restore the data set or choose another --out."
            )


def encoder_of(folder: RunFolder, config: RunConfig) -> dict[str, Tensor]:
    """The weights a pre-training left, or those of its whole method where the encoder's are lost.

    Damaged files are set aside, and a lost encoder is written again, byte for byte.

    Raises:
        StorageError: if both are lost or damaged.
    """
    weights, lost = _weights(folder.encoder)
    if weights:
        return weights
    whole, _ = _weights(folder.method)
    weights = released.encoder_inside(build_method(config), whole)
    if not weights:
        raise StorageError(f"{lost}. Restore it from a copy, or --retry computes it anew.")
    log.warning("%s; its weights were taken from '%s'", lost, folder.method.name)
    with contextlib.suppress(OSError):  # where nothing can be written, they serve from memory
        checkpoint.save_weights(folder.encoder, weights)
    return weights


def _weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """A file's weights; or none, and what became of it: it is gone, or damaged and set aside."""
    try:
        return checkpoint.load_weights(path), ""
    except FileNotFoundError:
        return {}, f"'{path}' is gone"
    except DamagedError as error:
        with contextlib.suppress(OSError):  # of several processes one is first
            set_aside(path)
        return {}, f"{str(error).partition('. ')[0]}; set aside"


def leave_result(monitor: Monitor, result: dict[str, Any], notes: list[str]) -> None:
    """Writes the result, the last act of a run, and removes the states that led to it."""
    monitor.check()
    folder = monitor.folder
    for note in notes:
        log.warning("%s", note)
    known = [n for n in result.get("notes", []) if n not in notes]
    write_json(folder.path / "record.json", {**result, "notes": known + notes})
    for states in folder.checkpoints.glob("*"):
        checkpoint.clear(states)


def leave_correct(monitor: Monitor, scores: Mapping[str, KeptScore]) -> None:
    """Leaves which test images each task named rightly, for comparisons image by image."""
    monitor.check()
    bits = {registry.endpoint(name): score.correct for name, score in scores.items()}
    write_correct(monitor.folder, bits)


def pretrain(pretraining: Pretraining, threads: int) -> dict[str, Any]:
    """Trains, and leaves the weights of the method and of its encoder; what the record needs."""
    module: Any = pretraining.method
    session = pretraining.session
    module.to(session.device).train()
    result = pretraining.run()
    seconds = result.pretrain_s or 0.0
    folder = session.monitor.folder
    if session.world.leads:
        session.monitor.check()
        checkpoint.save_weights(folder.encoder, pretraining.method.encoder().state_dict())
        checkpoint.save_weights(folder.method, module.state_dict())
    units = session.world.size * (1 if session.device.type == "cuda" else threads)
    result = replace(result, device_hours=seconds * units / 3600)
    return {"stage": PRETRAIN, "run_id": folder.run_id, **asdict(result)}


def import_encoder(folder: RunFolder, task: Task, path: str, world: World) -> dict[str, Any]:
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


def record_of(
    task: Task, parent: RunFolder, scores: Mapping[str, KeptScore], origin: dict[str, Any]
) -> dict[str, Any]:
    """A cell's result; code and hardware are those of its pre-training, which its times are of."""
    origin = parent.provenance() or origin
    pretrained = measured(parent)
    notes, code = list(pretrained.notes), origin["code"]
    others = sorted({s.commit for s in scores.values()} - {code["commit"]})
    if others:
        names = ", ".join(commit[:10] for commit in others)
        notes.append(f"evaluated with other code than pre-trained: {names}")
    record = replace(
        blank(task.config, task.run_id, task.parent),
        device=origin["hardware"]["device"],
        commit=code["commit"],
        dirty=bool(code["dirty"]) or any(s.dirty for s in scores.values()),
        hardware=provenance.hardware_label(origin["hardware"]),
        versions=origin["versions"],
        scores={registry.endpoint(name): s.top1 for name, s in scores.items()},
        seconds={name: s.seconds for name, s in scores.items() if s.seconds is not None},
        pretrain_loss=pretrained.pretrain_loss,
        images_seen=pretrained.images_seen,
        images_per_s=pretrained.images_per_s,
        pretrain_s=pretrained.pretrain_s,
        device_hours=pretrained.device_hours,
        flops=pretrained.flops,
        peak_memory_mib=pretrained.peak_memory_mib,
        data_wait_share=pretrained.data_wait_share,
        digests=pretrained.digests,
        notes=notes,
    )
    return asdict(record)
