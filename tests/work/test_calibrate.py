"""What a few timed steps are taken to say of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bench.work import calibrate
from tests.support.tiny_runs import QUICK, tasks


@pytest.mark.parametrize(("processes", "held"), [(1, 0), (3, 3)])
def test_one_of_several_processes_is_timed_with_its_share_of_a_batch(
    processes: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_at_once, session_of = [], calibrate.session_of

    def session(config: Any, resources: Any, monitor: Any) -> Any:
        held_at_once.append(resources.micro_batch)
        return session_of(config, resources, monitor)

    plain = calibrate.load.load(tasks("mae")[0].config, "")
    more = replace(plain, unlabelled=plain.test)  # 16 beside 24, which pre-training sees too
    monkeypatch.setattr(calibrate.load, "load", lambda *_: more)
    monkeypatch.setattr(calibrate, "session_of", session)
    measured = SimpleNamespace(images_per_s=100.0)
    monkeypatch.setattr(calibrate.Pretraining, "run", lambda self: measured)
    monkeypatch.setattr(calibrate, "_evaluation_s", lambda *_: 9.0)
    speed = calibrate.calibrate(tasks("mae")[0].config, QUICK, processes)
    assert held_at_once == [held]
    assert (speed.images_per_s, speed.evaluation_s) == (100.0 * processes, 9.0 / processes)
    assert speed.epoch_images == 40
