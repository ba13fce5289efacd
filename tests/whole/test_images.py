"""Pictures that cannot be decoded are named, counted and replaced; fatal only on request."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data.decoder import Decoder
from bench.plan import resolve, typed
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.layers import load_preset
from bench.plan.study import CELL, PRETRAIN, Task
from bench.store.store import Store
from bench.train import loop
from tests.support.tiny_runs import QUICK, TINY, run

DATA = ["data.name=folder", "data.train_images=0", "data.test_images=0", "data.classes=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight training pictures; one truncated, one text, one empty."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    cut = root / "train" / "cat" / "3.png"
    cut.write_bytes(cut.read_bytes()[:150])
    (root / "train" / "dog" / "7.png").write_text("not a picture")
    (root / "val" / "dog" / "0.png").write_bytes(b"")
    return root


def both_tasks() -> tuple[Task, Task]:
    layers = (*load_preset("procedural"), typed.parse_overrides([*TINY, *DATA]))
    config = resolve.Resolver(layers, 0).resolve(typed.parse_arms(["mae"])[0], 1, 0)
    pre, fin = pretrain_id(config), cell_id(config)
    return Task(PRETRAIN, pre, config), Task(CELL, fin, config, pre)


def test_replaced_and_reported(folder: Path, tmp_path: Path) -> None:
    pre, fin = both_tasks()
    resources = replace(QUICK, data_root=str(folder))
    assert run(tmp_path, pre, resources) == 0
    assert run(tmp_path, fin, resources) == 0
    log = Store(tmp_path).run(pre.run_id).log.read_text()
    assert log.count(f"cannot read image '{folder / 'train' / 'cat' / '3.png'}'") == 1
    notes = (Store(tmp_path).run(fin.run_id).result() or {})["notes"]
    assert notes == [
        "2 unreadable training image(s) replaced: cat/3.png, dog/7.png",
        "1 unreadable test image(s) replaced: dog/0.png",
    ]


def an_hour_to_start() -> None:
    """By the clock of the training loop, each start of decoding takes an hour."""
    start, late = Decoder.start, [0.0]

    def slow(decoder: Decoder, plan: Any) -> Any:
        late[0] += 3600
        return start(decoder, plan)

    Decoder.start = slow  # type: ignore[method-assign]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0])
    loop.time = clock  # type: ignore[assignment]


def test_worker_processes_replace_the_same_and_their_start_is_no_part_of_a_runs_time(
    folder: Path, tmp_path: Path
) -> None:
    pre, _ = both_tasks()
    results = []
    for workers in (0, 2):
        root, resources = tmp_path / str(workers), replace(QUICK, data_root=str(folder))
        resources = replace(resources, workers=workers)
        assert run(root, pre, resources, an_hour_to_start) == 0
        results.append(Store(root).run(pre.run_id).result() or {})
    assert results[0]["pretrain_loss"] == results[1]["pretrain_loss"]
    assert all(0 < r["pretrain_s"] < 3600 for r in results)


def test_fatal_on_request(folder: Path, tmp_path: Path) -> None:
    pre, _ = both_tasks()
    assert run(tmp_path, pre, replace(QUICK, data_root=str(folder), strict_images=True)) == 1
    status = Store(tmp_path).run(pre.run_id).status()
    assert status["failure"] == "data"
    assert ".png'" in status["message"]
