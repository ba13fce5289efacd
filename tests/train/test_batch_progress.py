"""A pre-training tells its method how much of the run is done, and what a whole step may draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.api import Batch, SampleStream, Wrapper
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


class FewerOrMore(Wrapper):
    """Hides one patch fewer or one more in all images of a step."""

    def masks_at(
        self, hidden: Tensor, noise: SampleStream | None, step: SampleStream | None
    ) -> Tensor:
        assert noise is not None
        assert step is not None
        more = torch.where(step.uniform(1) < 0.5, -1, 1)
        ranks = (noise.uniform(hidden.shape[1]) - hidden.float()).argsort(1).argsort(1)
        return ranks < hidden.sum(1, keepdim=True) + more


@pytest.mark.parametrize("micro_batch", [0, 48])
def test_masks_of_a_step_are_what_is_trained_on_and_what_the_digest_tells(
    tmp_path: Path, micro_batch: int
) -> None:
    """Through MAE, which carries as many tokens as its masks hide; the same however it is cut."""
    config = tasks("mae")[0].config
    found: dict[str, tuple[list[Tensor], dict[str, str]]] = {}
    for name in ("bare", "fewer or more"):
        method: Any = build_method(config)
        method = method if name == "bare" else FewerOrMore(method, None)
        seen: list[Batch] = []
        method.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[0]))
        monitor = Monitor(RunFolder(tmp_path / name))
        session = Session(torch.device("cpu"), Streams(0, 0), monitor, micro_batch)
        pretraining = Pretraining(method.train(), load.load(config, ""), config, session)
        pretraining.measure_layers = dict  # type: ignore[method-assign]
        pretraining.flops_per_image = lambda job: 0.0  # type: ignore[method-assign]
        measured = pretraining.run()
        assert all(b.most in (0, int(b.hidden.sum(1).max())) for b in seen)
        found[name] = [b.hidden.sum(1) for b in seen], measured.digests
    (own, first), (changed, second) = found["bare"], found["fewer or more"]
    moved = [(b - a).unique().tolist() for a, b in zip(own, changed, strict=True)]
    assert {tuple(m) for m in moved} == {(-1,), (1,)}, "one number for all of a step"
    assert first["mask"] != second["mask"]
    assert first["order"] == second["order"]
