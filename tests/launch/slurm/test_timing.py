"""Arms are timed in a job of their own, not on the machine that plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.launch.slurm import timing
from bench.launch.slurm.scheduler import Job
from bench.launch.slurm.site import load_site
from bench.launch.slurm.submit import Submitter
from bench.store.store import Store
from tests.support.fake_cluster import Fake
from tests.support.tiny_runs import QUICK, tasks


@pytest.mark.parametrize("processes", [1, 4])
def test_a_job_times_each_arm_and_processes_share_its_work(
    processes: int, fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    speed = timing.Speed(100.0, 24.0, 8.0, 1.0)
    measured: list[int] = []

    def measure(config: Any, resources: Any, processes: int) -> timing.Speed:
        if config.arm == "data2vec":
            raise RuntimeError("out of memory")
        measured.append(processes)
        return speed

    monkeypatch.setattr("bench.work.calibrate.calibrate", measure)

    def submit(self: Submitter, body: Any, stage: str, snapshot: Path) -> Job:
        asked.append((self.site.nodes, self.site.tasks, self.site.timeout_min, snapshot.exists()))
        body()
        return Job(token="a", name=stage, place="/", cluster="", logs="/", id="7")

    monkeypatch.setattr(Submitter, "submit_one", submit)
    said: list[str] = []
    submitter = Submitter(store, QUICK, load_site("", {"tasks_per_node": processes}), store.root)
    configs = [tasks(arm)[0].config for arm in ("mae", "data2vec", "simmim")]
    monkeypatch.setattr(timing, "ANSWER_WAIT_S", 0.0)
    found = timing.timed(submitter, configs, said.append)
    assert measured == [processes] * 2
    assert asked == [(1, 1, 30, True)]
    assert found == [speed, None, speed]
    assert said[:2] == ["timing 3 arm(s) in job 7; given up after 30 minutes", "timed 2 of 3"]
    assert not list(store.root.glob(".timing*"))


def test_a_job_that_ends_early_or_takes_too_long_leaves_arms_untimed(
    fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(token="a", name="timing", place="/", cluster="", logs="/", id="7")
    monkeypatch.setattr(Submitter, "submit_one", lambda *_: job)
    monkeypatch.setattr(timing, "LOOK_S", 0.01)
    submitter = Submitter(store, QUICK, load_site("", {}), store.root)
    config, said = tasks("mae")[0].config, []
    monkeypatch.setattr(timing, "ANSWER_WAIT_S", 0.0)
    assert timing.timed(submitter, [config], said.append) == [None]
    assert said[-1] == "the job ended early: the rest is not timed"
    monkeypatch.setattr(timing, "ANSWER_WAIT_S", 1e9)
    monkeypatch.setattr(timing, "MOST_S", 0.1)
    assert timing.timed(submitter, [config], said.append) == [None]
