"""Parts of the SLURM side on their own: requeue, snapshot, teardown, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.errors import REMEDIES, StopRequestedError, UsageError, remedy
from bench.launch.slurm import job
from bench.launch.slurm.job import SlurmRun
from bench.launch.slurm.launcher import _teardown
from bench.launch.slurm.scheduler import JobState, expand, parse
from bench.launch.slurm.site import load_site
from bench.launch.slurm.submission import judge
from bench.launch.snapshot import take_snapshot
from bench.machine import provenance
from bench.run import main
from bench.store.folder import host_key
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store
from bench.work.worker import load_task
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
        raise StopRequestedError(f"stopped by {name}", name)

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
    ("code", "restarts", "requeued"), [(137, 0, True), (137, 2, False), (1, 0, False)]
)
def test_teardown_requeues_the_killed_alone(
    code: int, restarts: int, requeued: bool, calls: Path
) -> None:
    lines = "\n".join(_teardown(2)).replace("sleep 60", "true")
    environment = {**os.environ, "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(["bash", "-c", f"(exit {code})\n{lines}"], env=environment)
    assert done.returncode == code
    assert calls.exists() == requeued


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


def test_doctor_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--out", str(tmp_path), "--data", f"folder:{tmp_path / 'none'}"]
    assert main(words) == 1
    assert "none' does not exist" in capsys.readouterr().out


def test_cancel_without_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "--out", str(tmp_path)]) == 3
    assert "nothing to cancel" in capsys.readouterr().err


def test_parse_and_expand() -> None:
    assert expand("7_[1-3,5%2]") == ["7_1", "7_2", "7_3", "7_5"]
    assert expand("7_4") == ["7_4"]
    jobs = parse("7_[0-1]|PENDING|Priority\n8|CANCELLED by 1000|None\n8.batch|FAILED|\n\n")
    assert jobs == {
        "7_0": JobState("PENDING", "Priority"),
        "7_1": JobState("PENDING", "Priority"),
        "8": JobState("CANCELLED", "None"),
    }


@pytest.mark.parametrize(
    ("state", "recorded", "parent", "expected"),
    [
        (JobState("RUNNING"), STOPPED, DONE, RUNNING),
        (JobState("FAILED"), DONE, DONE, DONE),
        (JobState("COMPLETED"), RUNNING, DONE, RUNNING),
        (JobState("PENDING", "DependencyNeverSatisfied"), PENDING, FAILED, BLOCKED),
        (JobState("CANCELLED"), STOPPED, DONE, STOPPED),
        (JobState("CANCELLED"), PENDING, FAILED, BLOCKED),
        (JobState("CANCELLED"), PENDING, STOPPED, BLOCKED),
        (JobState("FAILED"), STOPPED, DONE, FAILED),
        (None, PENDING, DONE, PENDING),
        (None, PENDING, BLOCKED, BLOCKED),
    ],
)
def test_judge(state: JobState | None, recorded: str, parent: str, expected: str) -> None:
    assert judge(state, recorded, parent, lost=False).state == expected


def test_a_killed_run_is_a_node_failure() -> None:
    assert judge(JobState("FAILED"), RUNNING, DONE, lost=False).failure == "node"


def test_site_file_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[slurm]\npartition = "gpu"\nnodes = 2\nsetup = ["module load cuda"]\n')
    monkeypatch.setenv("MTO_BENCH_SITE", str(path))
    site = load_site("", {"nodes": 4, "account": None})
    assert (site.partition, site.nodes, site.setup) == ("gpu", 4, ("module load cuda",))
    path.write_text('[slurm]\npartiton = "gpu"\n')
    with pytest.raises(UsageError, match=r"Did you mean 'slurm\.partition'"):
        load_site(str(path), {})
    path.write_text("[slurm]\ntimeout_min = 1\n")
    with pytest.raises(UsageError, match="--timeout"):
        load_site(str(path), {})
    with pytest.raises(UsageError, match="cannot read"):
        load_site(str(tmp_path / "none.toml"), {})
