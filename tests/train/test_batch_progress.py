"""A pre-training tells its method how much of the run is done, and what a whole step may draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import load
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.support.tiny_runs import tasks


@pytest.mark.parametrize("micro_batch", [0, 4])
def test_progress_rises_from_nought_in_equal_steps_to_below_one(
    tmp_path: Path, micro_batch: int
) -> None:
    config = tasks("simmim")[0].config
    method: Any = build_method(config)
    seen: list[float] = []
    once: list[float] = []

    def look(module: Any, arguments: Any) -> None:
        if module.training:
            seen.append(arguments[0].progress)
            once.append(arguments[0].step.uniform(1).item())

    method.register_forward_pre_hook(look)
    session = Session(torch.device("cpu"), Streams(0, 0), Monitor(RunFolder(tmp_path)), micro_batch)
    pretraining = Pretraining(method.train(), load.load(config, ""), config, session)
    pretraining.flops_per_image = lambda job: 0.0  # type: ignore[method-assign]
    pretraining.run()
    parts = 2 if micro_batch else 1
    assert seen == [step / 6 for step in range(6) for _ in range(parts)]
    assert once == [draw for draw in once[::parts] for _ in range(parts)]
    assert len(set(once)) == 6, "a stream a step, shared by its micro-batches"
