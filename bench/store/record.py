"""Records: the result of a cell, its schema and older ones."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from bench.api.rules import Epochs, Natural, Seed, hints
from bench.errors import StoreError
from bench.plan.config import RunConfig
from bench.plan.identity import recipe_digest
from bench.registry import endpoint
from bench.store.folder import RunFolder
from bench.store.shapes import held
from bench.store.states import DONE

SCHEMA = 2
"""Version of record.json; :func:`migrate` brings older ones up to it."""

WAIT_LIMIT = 0.05
"""Share of a pre-training spent waiting for data from which on a reader is warned."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one cell, as the report reads it. Accuracies in per cent, times in seconds.

    ``scores`` are top-1 accuracies after the last epoch by endpoint (``finetune_top1``),
    ``seconds`` what the tasks that train took, by task.
    ``pretrain_s`` is the time inside pre-training over all attempts, ``images_per_s`` the
    pre-training rate after the first epoch, ``device_hours`` pre-training time times the devices
    (or cores) used, ``flops`` those of pre-training (forward and backward, plug-ins included).
    ``added`` says of scores that were added afterwards by which recipe they are, as a hash.
    ``digests`` are those of order, crop and mask, and of second views where there are any.
    """

    schema: int = SCHEMA
    run_id: str
    pretrain_id: str
    arm: str
    base_arm: str
    method: str
    plugins: list[str] = field(default_factory=list)
    data: str
    model: str
    epochs: Epochs
    seed: Seed
    repeat: Natural = 0
    status: str = DONE
    failure: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    pretrain_loss: float | None = None
    images_seen: int = 0
    images_per_s: float | None = None
    pretrain_s: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    device_hours: float | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None
    data_wait_share: float | None = None
    digests: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    commit: str = ""
    dirty: bool = False
    hardware: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a pre-training measures of itself, and the record of its cells repeats."""

    pretrain_loss: float | None = None
    images_seen: int = 0
    images_per_s: float | None = None
    pretrain_s: float | None = None
    device_hours: float | None = None
    flops: float | None = None
    peak_memory_mib: float | None = None
    data_wait_share: float | None = None
    digests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measured(folder: RunFolder) -> Measured:
    """What a finished pre-training measured; nothing of one that has left no result.

    Raises:
        StoreError: if its record holds something else.
    """
    path, shape = folder.path / "record.json", hints(Measured)
    values = {k: v for k, v in (folder.result() or {}).items() if k not in ("stage", "run_id")}
    if extra := sorted(values.keys() - shape.keys()):
        raise StoreError(f"record of {folder.run_id} has unknown fields: {extra}")
    return Measured(**held(values, shape, path))


def blank(config: RunConfig, run_id: str, pretrain_id: str) -> Record:
    """A record that says which cell it is of, and nothing of how it went."""
    return Record(
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
        repeat=config.repeat,
        recipe=recipe_digest(config),
    )


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Brings the values of an older record.json up to :data:`SCHEMA`.

    Raises:
        StoreError: if the record comes from a newer version of this software.
    """
    version = values.get("schema", 0)
    if not isinstance(version, int):
        raise StoreError(f"record of {values.get('run_id', '?')} has schema {version!r}.")
    if version > SCHEMA:
        raise StoreError(
            f"record of {values.get('run_id', '?')} has schema {version}, this software knows "
            f"up to {SCHEMA}. Update mto-bench to read it."
        )
    return values if version == SCHEMA else _from_schema_1(values)


def _from_schema_1(values: dict[str, Any]) -> dict[str, Any]:
    """Scores had a field each, and fine-tuning alone was timed."""
    old = dict(values)
    fields_of = {name: old.pop(f"{name}_top1", None) for name in ("finetune", "probe", "knn")}
    took = old.pop("finetune_s", None)
    return {
        **old,
        "schema": 2,
        "scores": {endpoint(n): v for n, v in fields_of.items() if v is not None},
        "seconds": {} if took is None else {"finetune": took},
    }


def load_record(folder: RunFolder) -> Record | None:
    """The record of a finished cell, None for a folder without one or of a pre-training run.

    Raises:
        StoreError: if the record has unknown fields or a newer schema.
    """
    values = folder.result()
    if values is None or "pretrain_id" not in values:
        return None
    values = migrate(values)
    extra = set(values) - {f.name for f in fields(Record)}
    if extra:
        raise StoreError(f"record of {folder.run_id} has unknown fields: {sorted(extra)}")
    path = folder.path / "record.json"
    required = tuple(f.name for f in fields(Record) if f.default is f.default_factory is MISSING)
    return Record(**held(values, hints(Record), path, required))
