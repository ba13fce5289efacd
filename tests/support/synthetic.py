"""Synthetic studies: records of runs that were never trained, for the tests of the report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.write import prepare, results, write_report
from bench.store.files import write_json
from bench.store.record import Record
from bench.store.store import Store

BUDGETS = (100, 200, 400)
RISING: dict[str, Sequence[float]] = {"mae": [80, 81, 82], "mae+mto": [80.6, 81.7, 82.3]}
PLAN: dict[str, Any] = {
    "arms": ["mae", "mae+mto"],
    "budgets": [100, 200, 400],
    "seeds": [0, 1, 2, 3, 4],
    "target_epochs": 200,
    "endpoint": "finetune_top1",
    "secondary": ["probe_top1", "knn_top1"],
    "alpha": 0.05,
    "margin": 0.1,
    "ids": [],
}


def record(arm: str, epochs: int, seed: int, score: float | None, **values: Any) -> Record:
    """A finished run on digits; images, times and FLOPs follow from the epochs."""
    method, _, plugin = arm.partition("@")[0].partition("+")
    plain: dict[str, Any] = {
        "run_id": f"fin-{arm}-digits-e{epochs}-s{seed}",
        "pretrain_id": f"pre-{arm}-digits-e{epochs}-s{seed}",
        "arm": arm,
        "base_arm": method,
        "method": method,
        "plugins": [plugin.partition("(")[0]] if plugin else [],
        "data": "digits",
        "model": "ViT 48x4 /2 8px",
        "epochs": epochs,
        "seed": seed,
        "scores": {} if score is None else {"finetune_top1": score, "probe_top1": score - 10},
        "images_seen": epochs * 1000,
        "images_per_s": 500.0 if not plugin else 400.0,
        "pretrain_s": epochs * (2.0 if not plugin else 2.5),
        "device_hours": epochs * (2.0 if not plugin else 2.5) / 3600,
        "flops": epochs * 1e9 * (1.0 if not plugin else 1.1),
        "peak_memory_mib": 100.0,
        "digests": {"order": f"o{seed}", "crop": f"c{seed}", "mask": f"m{seed}"},
        "recipe": "abcdef012345",
        "commit": "0123456789abcdef",
        "hardware": "8 cores",
        "versions": {"torch": "2.9"},
    }
    return Record(**{**plain, **values})


def changed(record: Record, **values: Any) -> Record:
    """The record with other values; accuracies are named by their endpoints, None takes one out."""
    scores = {**record.scores, **{k: values.pop(k) for k in list(values) if k.endswith("_top1")}}
    kept = {name: score for name, score in scores.items() if score is not None}
    return replace(record, scores=kept, **values)


def with_run(
    records: list[Record], arm: str, epochs: int, seed: int, **values: Any
) -> list[Record]:
    """The records with one of them changed."""
    return [
        changed(r, **values) if (r.arm, r.epochs, r.seed) == (arm, epochs, seed) else r
        for r in records
    ]


def runs(
    curves: Mapping[str, Sequence[float]],
    seeds: Sequence[int] = range(5),
    noise: float = 0.1,
    budgets: Sequence[int] = BUDGETS,
    rng_seed: int = 0,
) -> list[Record]:
    """Records whose scores scatter around each arm's curve; the mean over seeds is exact."""
    rng = np.random.default_rng(rng_seed)
    records = []
    for arm in sorted(curves):
        for epochs, mean in zip(budgets, curves[arm], strict=True):
            draws = rng.normal(0, noise, len(seeds))
            scores = mean + draws - draws.mean()
            pairs = zip(seeds, scores, strict=True)
            records += [record(arm, epochs, seed, round(float(x), 6)) for seed, x in pairs]
    return records


def written(records: list[Record], form: str, plan: Any = None) -> str:
    """The report in one text format."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_report(prepare(records, plan), Path(folder), [form])
        return path.read_text()


def target(records: list[Record], plan: Any = None, **wanted: Any) -> dict[str, Any]:
    """The line of the epochs-to-target table for the main target of the primary endpoint."""
    rows = results(prepare(records, plan))["targets"]
    wanted = {"primary": True, **wanted}
    (row,) = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    return dict(row)


def stored(root: Path, name: str, records: Iterable[Record], planned: bool = True) -> Store:
    """A results folder with one study of these runs."""
    store, ids = Store(root), []
    for record in records:
        write_json(store.run(record.run_id).path / "record.json", asdict(record))
        ids.append(record.run_id)
    if planned:
        write_json(root / "studies" / name / "plan.json", {**PLAN, "ids": ids})
    return store
