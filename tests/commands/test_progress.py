"""What a running study prints where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.commands.progress import StudyView
from bench.commands.top import eta
from bench.launch.base import Progress, refresh
from bench.store.states import DONE, PENDING, RUNNING
from bench.store.store import Store
from bench.train.monitor import Monitor
from tests.support.tiny_runs import tasks


def shown(capsys: pytest.CaptureFixture[str], stage: int, **status: Any) -> str:
    """What a study of one run prints when that run ends with this status."""
    run = Progress(tasks("mae")[stage])
    run.state, view = PENDING, StudyView()
    view([run])
    run.state, run.status = DONE, status
    view([run])
    return capsys.readouterr().err


def test_a_finished_pre_training_shows_its_speed_and_its_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    err = shown(capsys, 0, images_per_s=4812.3, data_wait_share=0.004)
    assert "1/1 runs done" in err
    assert "4,812 img/s, waiting for data 0.4%" in err
    assert "warning" not in err


def test_waiting_for_data_is_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    err = " ".join(shown(capsys, 0, images_per_s=50.0, data_wait_share=0.31).split())
    assert "spent 31% of its time waiting for data; more --workers may help" in err


def test_an_evaluation_shows_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "img/s" not in shown(capsys, 1, images_per_s=50.0, data_wait_share=0.31)


def test_without_a_terminal_a_line_comes_with_finished_runs_or_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many quick runs share a line; a long one is heard of each minute; the last line ends it."""
    clock = [0.0]
    monkeypatch.setattr("bench.commands.progress.time.monotonic", lambda: clock[0])
    found = [Progress(task) for arm in ("mae", "simmim") for task in tasks(arm)]
    for run in found:
        run.state = PENDING
    view, told = StudyView(), []
    for second in range(200):
        clock[0] = float(second)
        if second in (1, 3, 12):
            found[(1, 3, 12).index(second)].state = DONE
        if second == 199:
            found[3].state = DONE
        view(found)
        told += [line for line in capsys.readouterr().err.splitlines() if "runs done" in line]
    assert [line.split()[1] for line in told] == ["2/4", "3/4", "3/4", "3/4", "4/4"]
    assert [line.split()[0] for line in told] == ["[0:10]", "[0:20]", "[1:20]", "[2:20]", "[3:19]"]
    assert "ETA" in told[0]
    assert "ETA" not in told[-1]


@pytest.mark.parametrize(
    ("status", "share"),
    [
        ({}, 0.0),
        ({"stage": "pretrain", "step": 3, "total": 12}, 0.25),
        ({"stage": "finetune", "step": 1, "total": 2}, 0.4),
        ({"stage": "probe", "step": 0, "total": 2}, 0.8),
    ],
)
def test_a_running_run_has_done_its_share_and_one_that_has_just_begun_nothing(
    status: dict[str, Any], share: float, store: Store
) -> None:
    pre, fin = tasks("mae")
    task = pre if status.get("stage") == "pretrain" else fin
    store.register(task)
    store.run(task.run_id).set_status(RUNNING, **status)
    progress = Progress(task, RUNNING)
    refresh(store, progress)
    assert progress.share == pytest.approx(share)


def test_time_left_is_that_of_this_attempt(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    folder = Store(tmp_path).run("pre-x")
    folder.path.mkdir(parents=True)
    folder.set_status(RUNNING, started=1000.0)
    monitor = Monitor(folder)

    def left(stage: str, step: int, at: float) -> str:
        clock[0] = at
        monitor.beat(stage, step, 10_000, 1.0, 0.5)
        return eta(folder.status())

    assert left("pretrain", 9000, 1010) == ""  # gone on with from a state; no pace yet
    assert left("pretrain", 9010, 1020) == "16:30"
    assert left("finetune", 1, 1100) == ""
    assert left("finetune", 1001, 1200) == "14:59"
    assert left("finetune", 1, 1300) == ""  # the next draw of labels
    folder.set_status(RUNNING, started=1400.0)
    assert eta(folder.status()) == ""
