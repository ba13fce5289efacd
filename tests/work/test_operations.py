"""A cost from counted operations."""

from __future__ import annotations

from dataclasses import replace
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
from bench.work import operations
from bench.work.estimate import Speed, cost, speed_key
from tests.support.tiny_runs import tasks


@pytest.mark.parametrize("arm", ["mae+mto", "data2vec"])
def test_what_a_plan_counts_is_what_a_run_counts(arm: str, tmp_path: Path) -> None:
    config = tasks(arm)[0].config
    method: Any = build_method(config)
    session = Session(torch.device("cpu"), Streams(0, 0), Monitor(RunFolder(tmp_path)))
    measured = Pretraining(method.train(), load.load(config, ""), config, session).run()
    assert measured.flops is not None
    counted = operations.pretraining(config)
    assert counted == pytest.approx(measured.flops / measured.images_seen, rel=1e-2)


def test_unlabelled_images_pretrain_and_are_counted_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pre, fin = tasks("mae")
    plain = load.load(pre.config, "")
    more = replace(plain, unlabelled=plain.test)  # 16 beside 24
    fewer = [operations.counted([task], "folder") for task in (pre, fin)]
    monkeypatch.setattr(operations, "load", lambda *_: more)
    counted = [operations.counted([task], "folder") for task in (pre, fin)]
    assert counted == [(fewer[0][0] * 40 / 24, 0), fewer[1]]
    session = Session(torch.device("cpu"), Streams(0, 0), Monitor(RunFolder(tmp_path)))
    method: Any = build_method(pre.config)
    pretraining = Pretraining(method.train(), more, pre.config, session)
    assert pretraining.run().images_seen == 2 * 40


def test_hours_grow_with_epochs_and_span_the_shares_assumed() -> None:
    pre, fin = tasks("mae")
    low, high = operations.gpu_hours([pre], "").pretrain
    assert high / low == pytest.approx(0.5 / 0.2)
    operations_done = 24 * 2 * operations.pretraining(pre.config)
    assert high * 3600 * 312e12 * 0.2 == pytest.approx(operations_done)
    longer = replace(
        pre, config=replace(pre.config, pretrain=replace(pre.config.pretrain, epochs=6))
    )
    both = operations.gpu_hours([pre, longer, fin], "")
    assert both.pretrain == pytest.approx((4 * low, 4 * high))
    two_epochs_of_two_draws = 2 * 2 * 24
    once = operations.finetuning(replace(fin.config, data=replace(fin.config.data, labels=1)), 24)
    assert both.finetune[1] * 3600 * 312e12 * 0.2 == pytest.approx(
        once / 4 * two_epochs_of_two_draws
    )


def test_seconds_are_all_operations_by_the_rates_assumed() -> None:
    both = tasks("mae")
    for unit, (slow, fast) in operations.RATES.items():
        low, high = operations.seconds(both, "", unit)
        assert (low * fast, high * slow) == pytest.approx((sum(operations.counted(both, "")),) * 2)


def test_what_is_counted_has_every_stream_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[operations.Batch] = []
    made = operations.Batch
    monkeypatch.setattr(operations, "Batch", lambda *a, **k: seen.append(made(*a, **k)) or seen[0])
    operations.pretraining(tasks("mae")[0].config)
    (batch,) = seen
    assert batch.noise is not None
    assert batch.step is not None
    assert batch.step.uniform(1).shape[0] == 1


def test_weights_that_are_given_cost_no_pre_training() -> None:
    """``--init`` at 1,600 epochs is a fine-tune alone, counted or at a measured speed."""
    pre, fin = (
        replace(task, config=replace(task.config, init="0123456789ab")) for task in tasks("mae")
    )
    assert operations.counted([pre], "") == (0, 0)
    assert operations.counted([pre, fin], "") == operations.counted([fin], "")
    speeds = {speed_key(pre): Speed(100.0, 10.0, 2.0, 5.0)}
    found = cost([pre, fin], speeds, (1, 1))
    assert (found.pretrain_hours, found.wall_s) == (0, found.evaluation_hours * 3600)
