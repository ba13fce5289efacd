"""Disks fill up, folders vanish, signals arrive: what was computed stays."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BusyError, StorageError
from bench.launch.inline import InlineLauncher
from bench.launch.local import LocalLauncher, modules, visible_gpus
from bench.machine import provenance
from bench.machine.cores import usable_cores
from bench.plan import resolve, typed
from bench.plan.config import Resources
from bench.plan.identity import pretrain_id
from bench.plan.layers import load_preset
from bench.plan.study import PRETRAIN, Task
from bench.store.files import read_json, write_json
from bench.store.folder import RunFolder
from bench.store.states import BLOCKED, DONE, FAILED, STOPPED
from bench.store.store import Store
from bench.train.monitor import Monitor
from tests.support.tiny_runs import (
    QUICK,
    TINY,
    Clock,
    KillAt,
    in_process,
    outcome,
    run,
    start,
    tasks,
)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("undisturbed")
    assert run(root, PRE) == 0
    return outcome(root, PRE)


PRE, FIN = tasks("mae")


class DiskFull:
    """No more room: from the state after ``step`` steps on, or for every file from then on."""

    def __init__(self, step: int, everything: bool) -> None:
        self.step, self.everything = step, everything

    def __call__(self) -> None:
        from bench.store import files
        from bench.train import checkpoint

        make, save = files.tempfile.mkstemp, checkpoint.save_state
        full = [False]

        def mkstemp(*args: Any, **kwargs: Any) -> Any:
            if full[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return make(*args, **kwargs)

        def save_state(folder: Path, step: int, *rest: Any) -> None:
            full[0] = step >= self.step
            try:
                save(folder, step, *rest)
            finally:
                full[0] = full[0] and self.everything

        files.tempfile.mkstemp = mkstemp
        checkpoint.save_state = save_state


@pytest.mark.parametrize("everything", [False, True], ids=["checkpoint", "everything"])
def test_disk_full(everything: bool, tmp_path: Path, expected: dict[str, Any]) -> None:
    folder = Store(tmp_path).run(PRE.run_id)
    assert run(tmp_path, PRE, fault=DiskFull(4, everything)) == 1
    if not everything:
        status = folder.status()
        assert (status["state"], status["failure"]) == (FAILED, "node")
        assert "No space left" in status["message"]
    assert (folder.checkpoints / "pretrain" / "step-000000003.pt").exists()
    assert run(tmp_path, PRE) == 0
    assert outcome(tmp_path, PRE) == expected


class Vanish:
    """The run's folder is removed once ``step`` steps are done."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def __call__(self) -> None:
        beat = Monitor.beat

        def removing(monitor: Monitor, stage: str, step: int, *rest: Any) -> None:
            if step == self.step:
                shutil.rmtree(self.folder)
            beat(monitor, stage, step, *rest)

        Monitor.beat = removing  # type: ignore[method-assign]


def test_vanished_folder_is_not_written_to(tmp_path: Path, expected: dict[str, Any]) -> None:
    folder = Store(tmp_path).run(PRE.run_id)
    assert run(tmp_path, PRE, fault=Vanish(folder.path, 4)) == 1
    assert not folder.path.exists()
    assert run(tmp_path, PRE) == 0
    assert outcome(tmp_path, PRE) == expected


def test_a_folder_claimed_by_another_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.lock() as claim:
        monitor = Monitor(folder, claim=claim)
        monitor.check()
        shutil.rmtree(folder.path)
        with folder.lock(), pytest.raises(StorageError, match="vanished"):
            monitor.log(step=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_saves_and_stops(
    number: signal.Signals, tmp_path: Path, expected: dict[str, Any]
) -> None:
    folder = Store(tmp_path).run(PRE.run_id)
    seldom = replace(QUICK, checkpoint_every_s=1e9)
    assert run(tmp_path, PRE, seldom, KillAt("pretrain", 2, number)) == 130
    assert folder.status()["state"] == STOPPED
    assert folder.status()["message"] == f"stopped by {number.name}, state saved at step 2"
    assert run(tmp_path, PRE, seldom) == 0
    assert outcome(tmp_path, PRE) == expected


def test_a_clock_set_forward_and_back_changes_no_number(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    """Killed and gone on with while the clock jumps by two days again and again."""
    assert run(tmp_path, PRE, fault=Clock(KillAt("pretrain", 3))) == -signal.SIGKILL
    assert run(tmp_path, PRE, fault=Clock()) == 0
    assert outcome(tmp_path, PRE) == expected


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    monitor = Monitor(RunFolder(tmp_path))
    with monitor.signals():
        os.kill(os.getpid(), signal.SIGINT)
        assert monitor.stopping == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_command_waits_for_the_first(tmp_path: Path) -> None:
    for task in (PRE, FIN):
        Store(tmp_path).register(task)
    with Store(tmp_path).run(PRE.run_id).lock():
        assert run(tmp_path, PRE) == 75
    first = start(tmp_path, PRE)
    while not Store(tmp_path).run(PRE.run_id).is_locked():
        time.sleep(0.01)
    launcher = LocalLauncher(Store(tmp_path), QUICK, jobs=2)
    ended = launcher.launch((PRE, FIN), lambda runs: None)
    first.join()
    assert [p.state for p in ended] == [DONE, DONE]
    assert Store(tmp_path).run(PRE.run_id).status()["attempt"] == 1


def launch_all(root: Path, every: list[Task]) -> int:
    ended = LocalLauncher(Store(root), QUICK, jobs=2).launch(every, lambda runs: None)
    return sum(p.state != DONE for p in ended)


def test_two_commands_at_once_share_the_work(tmp_path: Path) -> None:
    every = [t for arm in ("mae", "simmim") for t in tasks(arm)]
    other = in_process(launch_all, tmp_path, every)
    assert launch_all(tmp_path, every) == 0
    other.join()
    assert other.exitcode == 0
    for task in every:
        folder = Store(tmp_path).run(task.run_id)
        steps = (folder.path / "metrics.jsonl").read_text().splitlines()
        assert folder.status()["attempt"] == 1
        assert len(steps) == len(folder.metrics())


def diverging() -> Task:
    layers = (
        *load_preset("procedural"),
        typed.parse_overrides([*TINY, "pretrain.lr=1e6", "pretrain.warmup_epochs=0"]),
    )
    config = resolve.Resolver(layers, 0).resolve(typed.parse_arms(["mae"])[0], 2, 0)
    return Task(PRETRAIN, pretrain_id(config), config)


def test_one_failure_blocks_only_what_depends_on_it(tmp_path: Path) -> None:
    bad = diverging()
    child = replace(FIN, run_id="fin-blocked", parent=bad.run_id)
    ended = LocalLauncher(Store(tmp_path), QUICK, jobs=2).launch(
        (bad, PRE, child, FIN), lambda runs: None
    )
    assert [p.state for p in ended] == [FAILED, DONE, BLOCKED, DONE]
    assert ended[0].status["failure"] == "non-finite"


def test_a_crashed_run_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    killed: set[str] = set()

    def murder(runs: Any) -> None:
        claim = Store(tmp_path).run(PRE.run_id).claim()
        if claim and claim not in killed and Store(tmp_path).run(PRE.run_id).is_locked():
            killed.add(claim)
            os.kill(int(claim.split()[0]), signal.SIGKILL)

    ended = LocalLauncher(Store(tmp_path), QUICK).launch((PRE, FIN), murder)
    assert [p.state for p in ended] == [FAILED, BLOCKED]
    assert ended[0].status["failure"] == "node"
    assert "SIGKILL" in ended[0].status["message"]
    assert len(killed) == 2


def test_the_death_of_the_fork_server_costs_no_run(tmp_path: Path) -> None:
    """Its children live on; the launcher, which no longer hears how they end, waits for them."""
    task = tasks("mae", 60)[0]
    folder, killed = Store(tmp_path).run(task.run_id), []

    def murder(runs: Any) -> None:
        if not killed and folder.status().get("step", 0):
            killed.append(forkserver._forkserver._forkserver_pid)
            os.kill(killed[0], signal.SIGKILL)

    ended = LocalLauncher(Store(tmp_path), QUICK).launch((task,), murder)
    assert len(killed) == 1
    assert ended[0].state == DONE
    assert folder.status()["attempt"] == 1


def test_inline_waits_too(tmp_path: Path) -> None:
    first = start(tmp_path, PRE)
    while not Store(tmp_path).run(PRE.run_id).is_locked():
        time.sleep(0.01)
    ended = InlineLauncher(Store(tmp_path), QUICK).launch((PRE,), lambda runs: None)
    first.join()
    assert ended[0].state == DONE


def test_inline_waits_for_a_command_that_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the run between the look at its lock and the start."""
    tries: list[str] = []

    def execute(store: Store, task: Task, resources: Resources) -> None:
        tries.append(task.run_id)
        if len(tries) == 1:
            raise BusyError("another process computes it")

    monkeypatch.setattr("bench.work.runner.execute", execute)
    ended = InlineLauncher(Store(tmp_path), QUICK).launch((PRE,), lambda runs: None)
    assert tries == [PRE.run_id] * 2
    assert ended[0].state == DONE


def test_a_record_names_the_machine_and_code_of_its_pre_training(tmp_path: Path) -> None:
    """Its times were taken there; an evaluation elsewhere or by other code is noted."""
    assert run(tmp_path, PRE) == 0
    path = Store(tmp_path).run(PRE.run_id).path / "provenance.json"
    origin = read_json(path) or {}
    here = origin["code"]["commit"]
    origin["code"]["commit"] = "0123456789abcdef"
    origin["hardware"]["cpu"] = "another processor"
    write_json(path, origin)
    assert run(tmp_path, FIN) == 0
    (record,) = Store(tmp_path).records([FIN.run_id])
    assert record.commit == "0123456789abcdef"
    assert "another processor" in record.hardware
    assert f"evaluated with other code than pre-trained: {here[:10]}" in record.notes


def test_runs_are_of_the_code_that_the_launcher_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever edits or commits while a study runs changes neither its runs nor what they say."""
    known = modules([PRE, FIN])
    assert {"baselines.mae.model", "bench.evaluate.finetune"} <= set(known)
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "loaded", "dirty": ""})
    ended = LocalLauncher(Store(tmp_path), QUICK).launch([PRE], lambda runs: None)
    assert [p.state for p in ended] == [DONE]
    found = read_json(Store(tmp_path).run(PRE.run_id).path / "provenance.json")
    assert found is not None
    assert found["code"]["commit"] == "loaded"


def test_cores_where_no_process_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


def test_visible_gpus_honours_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc")
    assert visible_gpus() == ["2", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_line_torn_by_a_kill_costs_that_line_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_metrics({"stage": "pretrain", "step": 1, "loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "pretr')
    folder.append_metrics({"stage": "pretrain", "step": 2, "loss": 0.5})
    assert [m["step"] for m in folder.metrics()] == [1, 2]


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken effect; signals of lower numbers are handled before it."""
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a stopped process has been sent a signal that it cannot yet handle."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_a_study_is_computed_in_a_thread_too(tmp_path: Path) -> None:
    """Where no handler of a signal can be set: a notebook's executor, a window's worker."""
    ended = []
    launcher = LocalLauncher(Store(tmp_path), QUICK)
    thread = threading.Thread(target=lambda: ended.extend(launcher.launch((PRE,), lambda r: None)))
    thread.start()
    thread.join(120)
    assert [p.state for p in ended] == [DONE]


DEAF = """
import signal, sys
from multiprocessing import forkserver
from pathlib import Path
from bench.launch.local import LocalLauncher
from bench.plan.config import Resources
from bench.store.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)
LocalLauncher(Store(Path(sys.argv[1])), Resources()).launch((), lambda runs: None)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
status = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")))
"""


def test_ctrl_c_is_nothing_to_the_server_that_forks_runs(tmp_path: Path) -> None:
    """It shares the terminal, and said so in a traceback while it still imported PyTorch."""
    line = [sys.executable, "-c", DEAF, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert int(done.stdout, 16) & 1 << (signal.SIGINT - 1)


def test_two_interrupts_end_a_launcher_whose_run_does_not_answer(tmp_path: Path) -> None:
    task = tasks("mae", 400)[0]
    folder = Store(tmp_path).run(task.run_id)
    command = in_process(launch_all, tmp_path, [task])
    while folder.status().get("step", 0) < 2:
        time.sleep(0.05)
    run_pid = int(folder.claim().split()[0])
    os.kill(run_pid, signal.SIGSTOP)
    while not is_stopped(run_pid):
        time.sleep(0.01)
    os.kill(command.pid, signal.SIGINT)
    while not has_pending(run_pid, signal.SIGTERM):
        time.sleep(0.05)
    assert command.is_alive(), "one interrupt waits for the run's state"
    os.kill(command.pid, signal.SIGINT)
    command.join(30)
    assert command.exitcode == 1
    assert not folder.is_locked()
    assert folder.status()["state"] == STOPPED
