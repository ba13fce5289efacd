"""Parts of the SLURM side on their own: requeue, snapshot, teardown, doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.errors import (
    REMEDIES,
    LostProcessError,
    RequeueError,
    StopRequestedError,
    UsageError,
    remedy,
)
from bench.launch.slurm import job
from bench.launch.slurm.job import SlurmRun
from bench.launch.slurm.scheduler import JobState, expand, parse
from bench.launch.slurm.submission import Told, judge
from bench.launch.slurm.submit import teardown
from bench.launch.snapshot import take_snapshot
from bench.machine import provenance
from bench.run import main
from bench.store.folder import RunFolder, host_key
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store
from bench.train.monitor import GO_ON, REQUEUE, Early, Monitor
from bench.work.worker import load_task
from tests.support.fake_cluster import Fake
from tests.support.tiny_runs import QUICK, tasks

PRE, FIN = tasks("mae")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scontrol that writes down what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(job, "REQUEUE_WAIT_S", 0.0)
    monkeypatch.setattr(job.signal, "signal", lambda *_: None)
    return tmp_path / "calls"


def stopped_by(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(*_: Any) -> None:
        kind = RequeueError if name == "SIGUSR2" else StopRequestedError
        raise kind(f"stopped by {name}")

    monkeypatch.setattr(job, "compute", compute)


def test_the_signal_ahead_of_the_limit_requeues(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_by("SIGUSR2", monkeypatch)
    with pytest.raises(StopRequestedError):
        SlurmRun(tmp_path, PRE.run_id, QUICK, 5)()
    assert calls.read_text() == "requeue 77\n"


@pytest.mark.parametrize(
    ("name", "rank", "restarts"),
    [("SIGTERM", "0", "0"), ("SIGUSR2", "1", "0"), ("SIGUSR2", "0", "5")],
    ids=["cancelled", "not leading", "too often"],
)
def test_otherwise_it_does_not(
    name: str,
    rank: str,
    restarts: str,
    calls: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped_by(name, monkeypatch)
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    Store(tmp_path).register(PRE)
    with pytest.raises(StopRequestedError):
        SlurmRun(tmp_path, PRE.run_id, QUICK, 5)()
    assert not calls.exists()
    if restarts == "5":
        status = Store(tmp_path).run(PRE.run_id).status()
        assert (status["state"], status["failure"]) == (FAILED, "time-out")


@pytest.mark.parametrize(
    ("code", "kills", "requeued"),
    [(137, 0, True), (140, 1, True), (137, 2, False), (1, 0, False), (139, 0, False)],
)
def test_teardown_requeues_the_killed_alone_and_keeps_the_exit_code(
    code: int, kills: int, requeued: bool, calls: Path, tmp_path: Path
) -> None:
    """Ends by its time limit, of which there may be many, do not count as kills."""
    kept = tmp_path / "token_3.exit"
    kept.write_text("130\n" * 5 + "137\n" * kills)
    lines = "\n".join(teardown(2, tmp_path / "token")).replace("sleep 60", "exit 9")
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash", "-c", f"(exit {code})\n{lines}"], env=environment)
    assert done.returncode == (9 if requeued else code)
    assert calls.exists() == requeued
    assert kept.read_text().split()[-1] == str(code)


def test_teardown_asks_again_while_the_controller_is_away(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "scontrol").write_text(
        f'#!/bin/sh\necho x >> {calls}\n[ "$(wc -l < {calls})" -ge 3 ]\n'
    )
    lines = "\n".join(teardown(2, tmp_path / "token")).replace("sleep 10", "true")
    lines = lines.replace("sleep 60", "exit 9")
    assert subprocess.run(["bash", "-c", f"(exit 137)\n{lines}"]).returncode == 9
    assert calls.read_text().count("x") == 3


@pytest.mark.parametrize(("failures", "asked"), [(3, 4), (99, 5)])
def test_requeue_is_tried_again_while_the_controller_is_away(
    failures: int, asked: int, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "REQUEUE_TRIES", 5)
    monkeypatch.setattr(job, "REQUEUE_AGAIN_S", 0.0)
    (tmp_path / "bin" / "scontrol").write_text(
        f'#!/bin/sh\necho x >> {calls}\n[ "$(wc -l < {calls})" -gt {failures} ]\n'
    )
    stopped_by("SIGUSR2", monkeypatch)
    with pytest.raises(StopRequestedError):
        SlurmRun(tmp_path, PRE.run_id, QUICK, 5)()
    assert calls.read_text().count("x") == asked


@pytest.mark.parametrize(("rank", "ends"), [("0", SystemExit), ("1", LostProcessError)])
def test_a_lost_process_counts_as_a_kill(
    rank: str, ends: type[BaseException], calls: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    def compute(*_: Any) -> None:
        raise LostProcessError("gone")

    monkeypatch.setattr(job, "compute", compute)
    monkeypatch.setenv("SLURM_PROCID", rank)
    heeded: dict[int, Any] = {}
    monkeypatch.setattr(job.signal, "signal", heeded.__setitem__)
    with pytest.raises(ends) as ended:
        SlurmRun(tmp_path, PRE.run_id, QUICK, 5)()
    assert heeded[signal.SIGTERM] is signal.SIG_IGN
    if rank == "0":
        assert ended.value.code == 137  # type: ignore[attr-defined]


def test_a_signal_that_comes_twice_before_the_run_can_hear_it(tmp_path: Path) -> None:
    """Remembered, and heeded at the first step; afterwards it is only remembered again."""
    folder, early = RunFolder(tmp_path), Early()
    before = signal.signal(signal.SIGUSR2, early)
    try:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR2)
        monitor = Monitor(folder)
        with monitor.signals():
            assert monitor.urgency() == REQUEUE
        os.kill(os.getpid(), signal.SIGUSR2)
        assert early.heard == "SIGUSR2"
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_without_an_early_signal_a_run_goes_on(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR2, Early())
    try:
        monitor = Monitor(RunFolder(tmp_path))
        with monitor.signals():
            assert monitor.urgency() == GO_ON
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_registered_task_is_loaded_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.register(FIN)
    assert load_task(store, FIN.run_id) == FIN
    with pytest.raises(UsageError, match="no run 'pre-x'"):
        load_task(store, "pre-x")


def test_snapshot_is_complete_and_taken_once(tmp_path: Path) -> None:
    first = take_snapshot(tmp_path)
    assert take_snapshot(tmp_path) == first
    assert [p.name for p in tmp_path.iterdir()] == [first.name]
    program = "import bench, bench.machine.provenance as p; print(bench.__file__, p.code())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=first, capture_output=True, text=True
    )
    assert str(first) in done.stdout, done.stderr
    assert provenance.code()["commit"] in done.stdout
    assert (first / "bench" / "plan" / "presets" / "digits.yaml").exists()


def test_a_run_elsewhere_counts_as_running_while_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Store(tmp_path).run("pre-x")
    with folder.lock() as claim:
        folder.set_status(RUNNING)
    assert claim.split()[2] == host_key()
    assert folder.status()["state"] == STOPPED
    (folder.path / "run.lock").write_text("17 abc elsewhere")
    assert folder.status()["state"] == RUNNING
    monkeypatch.setattr("bench.store.folder.now", lambda: 1e12)
    assert folder.status()["state"] == STOPPED


def test_every_failure_class_has_its_remedy() -> None:
    assert set(REMEDIES) == {"oom", "non-finite", "time-out", "node", "code", "data"}
    assert all(len(text) > 20 and "\n" not in text for text in REMEDIES.values())
    assert remedy("unheard of") == ""


def test_doctor_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(tmp_path), "--json"]) == 0
    found = {f["what"]: f["state"] for f in json.loads(capsys.readouterr().out)}
    assert found["data"] == found["file locks"] == found["SIGUSR2"] == "ok"
    assert not list(tmp_path.glob(".doctor*"))


def test_doctor_tells_the_rest_where_a_command_of_slurm_is_not_there(
    fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake" / "srun").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "fake"))
    out = tmp_path / "o"
    assert main(["doctor", "--launcher", "slurm", "--out", str(out), "--json"]) == 1
    found = {f["what"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["data"]["state"] == "ok"
    for part in ("scheduler", "compute node"):
        assert found[part]["state"] == "bad"
        assert "needs srun on PATH" in found[part]["detail"]
    assert not list(out.glob(".doctor*"))


def test_doctor_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--out", str(tmp_path), "--data", f"folder:{tmp_path / 'none'}"]
    assert main(words) == 1
    assert "none' does not exist" in capsys.readouterr().out


def test_doctor_opens_the_images_of_a_preset_with_a_long_warm_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val"):
        for name in ("red", "blue"):
            (folder := tmp_path / "i" / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), name).save(folder / "0.png")
    words = ["doctor", "--out", str(tmp_path / "o"), "--data", f"imagenet:{tmp_path / 'i'}"]
    main([*words, "--json"])
    found = {f["what"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["data"]["detail"] == "2 of 2 test images are copies of training images"


def test_cancel_without_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "--out", str(tmp_path)]) == 3
    assert "nothing to cancel" in capsys.readouterr().err


def test_parse_and_expand() -> None:
    assert expand("7_[1-3,5%2]") == ["7_1", "7_2", "7_3", "7_5"]
    assert expand("7_4") == ["7_4"]
    text = "7_[0-1]|PENDING|Priority|a|b\n8|CANCELLED by 1000|None\n8.batch|FAILED|\n\n"
    jobs = parse(text)
    assert jobs == {
        "7_0": JobState("PENDING", "Priority", "a|b"),
        "7_1": JobState("PENDING", "Priority", "a|b"),
        "8": JobState("CANCELLED", "None"),
    }


SAVED, DIED = Told(STOPPED, STOPPED), Told(STOPPED, RUNNING)
"""A run that said it was stopped, and one that died without a word: readers see both stopped."""


@pytest.mark.parametrize(
    ("state", "told", "parent", "expected"),
    [
        (JobState("RUNNING"), SAVED, DONE, RUNNING),
        (JobState("FAILED"), Told(DONE, DONE), DONE, DONE),
        (JobState("COMPLETED"), Told(RUNNING, RUNNING), DONE, RUNNING),
        (JobState("PENDING", "DependencyNeverSatisfied"), Told(PENDING, PENDING), FAILED, BLOCKED),
        (JobState("PENDING", "DependencyNeverSatisfied"), Told(PENDING, PENDING), STOPPED, STOPPED),
        (JobState("CANCELLED"), SAVED, DONE, STOPPED),
        (JobState("CANCELLED"), Told(PENDING, PENDING), FAILED, BLOCKED),
        (JobState("CANCELLED"), Told(PENDING, PENDING), STOPPED, STOPPED),
        (JobState("CANCELLED"), Told(FAILED, FAILED), DONE, FAILED),
        (JobState("CANCELLED"), Told(PENDING, PENDING), RUNNING, PENDING),
        (JobState("FAILED"), SAVED, DONE, STOPPED),
        (JobState("TIMEOUT"), SAVED, DONE, STOPPED),
        (JobState("FAILED"), Told(FAILED, FAILED), DONE, FAILED),
        (JobState("FAILED"), Told(PENDING, PENDING), DONE, RUNNING),
        (None, Told(PENDING, PENDING), DONE, PENDING),
        (None, Told(RUNNING, RUNNING), DONE, RUNNING),
        (None, Told(PENDING, PENDING), BLOCKED, BLOCKED),
    ],
)
def test_judge(state: JobState | None, told: Told, parent: str, expected: str) -> None:
    found = judge(state, told, parent, lost=False)
    assert found.state == expected
    if told.word in (FAILED, STOPPED):
        assert not found.failure, "a run's own word stands"


def test_however_long_it_is_lost_a_run_that_beats_is_running() -> None:
    assert judge(None, Told(RUNNING, RUNNING), DONE, lost=True).state == RUNNING
    assert judge(None, SAVED, DONE, lost=True).state == STOPPED
    assert judge(None, DIED, DONE, lost=True).failure == "node"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (137, "killed by SIGKILL (often: out of memory)"),
        (139, "killed by SIGSEGV"),
        (None, "killed without a word (often: out of memory)"),
        (1, "ended without a word (exit code 1); see its log"),
    ],
)
def test_a_killed_run_is_a_node_failure_and_says_by_what(code: int | None, words: str) -> None:
    told = Told(STOPPED, RUNNING, code)
    found = judge(JobState("FAILED"), told, DONE, lost=True)
    assert (found.state, found.failure, found.message) == (FAILED, "node", words)


def test_a_dry_run_describes_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "--methods mae,simmim --epochs 1,2 --preset smoke --launcher slurm --partition p --dry-run"
    )
    sizes = "--nodes 2 --ngpus 2 --batch-size 3 --timeout 60 --array-parallelism 2 --seeds 2"
    batch = ["pretrain.batch_size=32", "--out", str(tmp_path / "o")]
    assert main([*line.split(), *sizes.split(), *batch]) == 0
    said = capsys.readouterr().out
    for wanted in (
        "jobs: 2 array(s)",
        "1. 8 pre-trainings, at most 1 at once",
        "2. 8 cells, each behind its pre-training in 1 (aftercorr), at most 1 at once",
        "3. a report behind all of them",
        "2 node(s) x 2 GPU(s), 4 process(es)",
        "mae, simmim: batch 32 = 8 images a process, 3 at once x 3 accumulated",
        "limits: 60 min a pre-training, 60 a cell",
        "#SBATCH --array=0-7%1",
        "#SBATCH --partition=p",
        "GPU-hours of pre-training",
        "of its 312 TFLOP/s in bf16",
    ):
        assert wanted in said, wanted
    assert not (tmp_path / "o").exists()
