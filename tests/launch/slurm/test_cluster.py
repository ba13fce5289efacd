"""End to end on a real one-node SLURM: bring it up with ``slurm/cluster.sh up``, see run.sh."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.plan.study import Task
from bench.run import main
from bench.store.files import read_json
from bench.store.states import BLOCKED, DONE, FAILED, STOPPED
from bench.store.store import Store
from tests.support.tiny_runs import TINY, outcome, run, slow, tasks

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]

WAIT_S = 200
LONG = 400


def argv(out: Path, methods: str, epochs: str, *more: str) -> list[str]:
    words = ["--preset", "procedural", "--methods", methods, "--epochs", epochs, "--seeds", "1"]
    words += ["--launcher", "slurm", "--partition", "main", "--poll", "1", "--timeout", "10"]
    words += ["--device", "cpu", "--threads", "1", "--workers", "0"]
    return [*words, "--checkpoint-every", "2", "--out", str(out), *TINY, *more]


def until(true: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {WAIT_S} s")


def status(out: Path, task: Task) -> dict[str, Any]:
    return Store(out).run(task.run_id).status()


def steps(out: Path, task: Task) -> int:
    return int(status(out, task).get("step", 0)) if status(out, task)["state"] == "running" else 0


def job_of(out: Path, task: Task) -> str:
    return str((read_json(Store(out).run(task.run_id).path / "job.json") or {})["id"])


def restarts(job: str) -> int:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(shown.partition("Restarts=")[2].split()[0])


def undisturbed(root: Path, arm: str, epochs: int) -> dict[str, Any]:
    task = tasks(arm, epochs)[0]
    assert run(root, task, slow()) == 0
    return outcome(root, task)


def test_a_study_of_two_methods_and_two_budgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Submitted and left; the same command comes back to the same jobs and prints the table."""
    command = argv(tmp_path, "mae,simmim", "1,2")
    assert main([*command, "--detach"]) == 0
    runs = [t for arm in ("mae", "simmim") for e in (1, 2) for t in tasks(arm, e)]
    jobs = {t.run_id: job_of(tmp_path, t) for t in runs}
    assert len({j.partition("_")[0] for j in jobs.values()}) == 2, "two job arrays"
    assert main(command) == 0
    assert {t.run_id: job_of(tmp_path, t) for t in runs} == jobs, "submitted twice"
    printed = capsys.readouterr()
    assert "8 runs submitted, 0 already" in printed.err
    assert "0 runs submitted, 8 already" in printed.err
    assert re.search(r"^simmim +2 ", printed.out, re.MULTILINE), printed.out
    for task in tasks("mae", 2):
        assert run(tmp_path / "here", task, slow()) == 0
        assert outcome(tmp_path / "here", task) == outcome(tmp_path, task)
    study = next((tmp_path / "studies").iterdir())
    report = str((read_json(study / "jobs.json") or {})["report"]["id"])
    until(lambda: "JobState=COMPLETED" in show(report), "the report job")
    assert (study / "report.html").exists(), "only the report job writes the page"
    origin = read_json(Store(tmp_path).run(runs[0].run_id).path / "provenance.json") or {}
    assert origin["code"]["commit"] != "unknown"


def show(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout


def test_a_failing_cell_blocks_its_dependent_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = argv(tmp_path, "mae,simmim", "1", "mae.pretrain.lr=1e6")
    assert main(command) == 1
    assert "non-finite: the loss diverged" in capsys.readouterr().err
    states = {}
    for folder in Store(tmp_path).folders():
        states[folder.run_id.rsplit("-", 4)[0]] = folder.status()["state"]
    assert states == {
        "pre-mae": FAILED,
        "fin-mae": BLOCKED,
        "pre-simmim": DONE,
        "fin-simmim": DONE,
    }
    study = next((tmp_path / "studies").iterdir()).name
    assert main(["status", study, "--out", str(tmp_path)]) == 0
    assert "blocked" in capsys.readouterr().out
    assert main(["retry", "--out", str(tmp_path)]) == 1
    pre = next(f for f in Store(tmp_path).folders() if f.run_id.startswith("pre-mae"))
    assert pre.status()["attempt"] == 2


def test_a_run_that_meets_its_time_limit_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """Held still until its one-minute limit is near, so that no machine is fast enough to miss it.

    SLURM looks at limits every 30 s, so the signal due 15 s after the start comes 45 s after it at
    the latest. A stopped process may wake by it, or keep it until it is told to go on.
    """
    (tmp_path / "site.toml").write_text("[slurm]\nsignal_delay_s = 45\n")
    limited, pre = tmp_path / "limited", tasks("mae+mto", LONG)[0]
    expected = undisturbed(tmp_path / "here", "mae+mto", LONG)
    command = argv(limited, "mae+mto", str(LONG), "--site", str(tmp_path / "site.toml"))
    assert main([*command, "--timeout", "1", "--detach"]) == 0
    until(lambda: steps(limited, pre) > 5, "the run's start")
    begin, job = time.monotonic(), job_of(limited, pre)
    subprocess.run(["scancel", "--signal=STOP", job], check=True)
    log = Store(limited).run(pre.run_id).log
    until(lambda: "SIGUSR2" in log.read_text() or time.monotonic() > begin + 46, "the signal")
    subprocess.run(["scancel", "--signal=CONT", job], check=False)
    until(lambda: Store(limited).run(pre.run_id).is_done(), "the limited run's end")
    assert outcome(limited, pre) == expected
    assert "stopped by SIGUSR2, state saved" in log.read_text()
    assert restarts(job) >= 1
    main(["cancel", "--out", str(limited)])


def test_a_preempted_run_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    """Pushed off the node by a job of higher priority, and requeued."""
    preempted = tasks("data2vec", LONG)[0]
    assert main([*argv(tmp_path, "data2vec", str(LONG)), "--detach"]) == 0
    until(lambda: steps(tmp_path, preempted) > 5, "the run to be pre-empted")
    subprocess.run(
        ["sbatch", "-p", "urgent", "-n", "8", "-o", "/dev/null", "--wrap", "sleep 1"], check=True
    )
    job = job_of(tmp_path, preempted)
    until(lambda: restarts(job) == 1, "pre-emption")
    expected = undisturbed(tmp_path / "here", "data2vec", LONG)
    until(lambda: Store(tmp_path).run(preempted.run_id).is_done(), "the pre-empted run's end")
    assert outcome(tmp_path, preempted) == expected
    main(["cancel", "--out", str(tmp_path)])


def test_two_tasks_compute_one_run(tmp_path: Path) -> None:
    assert main(argv(tmp_path, "mae", "2", "--tasks-per-node", "2")) == 0
    pre, fin = tasks("mae", 2)
    assert run(tmp_path / "here", pre, slow()) == 0
    digests = [
        (Store(root).run(pre.run_id).result() or {})["digests"]
        for root in (tmp_path, tmp_path / "here")
    ]
    assert digests[0] == digests[1]
    for task in (pre, fin):
        origin = read_json(Store(tmp_path).run(task.run_id).path / "provenance.json") or {}
        assert origin["hardware"]["processes"] == 2


def test_two_tasks_are_requeued_together(tmp_path: Path) -> None:
    pre = tasks("mae", 100)[0]
    assert main([*argv(tmp_path, "mae", "100", "--tasks-per-node", "2"), "--detach"]) == 0
    until(lambda: steps(tmp_path, pre) > 5, "the run's start")
    subprocess.run(["scancel", "--signal=USR2", job_of(tmp_path, pre)], check=True)
    until(lambda: Store(tmp_path).run(pre.run_id).is_done(), "the run's end")
    assert restarts(job_of(tmp_path, pre)) == 1
    assert run(tmp_path / "here", pre, slow()) == 0
    digests = [
        (Store(root).run(pre.run_id).result() or {})["digests"]
        for root in (tmp_path, tmp_path / "here")
    ]
    assert digests[0] == digests[1]
    main(["cancel", "--out", str(tmp_path)])


def process_of(job: str, rank: int) -> int:
    """The process of a job's rank, from the environments of all."""
    marks = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((place / "environ").read_bytes().split(b"\0"))
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if marks <= environment and b"submitit" in command and b"srun" not in command:
            return int(place.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_of_two_tasks_is_queued_again(rank: int, tmp_path: Path) -> None:
    pre = tasks("mae", 100)[0]
    assert main([*argv(tmp_path, "mae", "100", "--tasks-per-node", "2"), "--detach"]) == 0
    until(lambda: steps(tmp_path, pre) > 5, "the run's start")
    job = job_of(tmp_path, pre)
    os.kill(process_of(job, rank), signal.SIGKILL)
    until(lambda: Store(tmp_path).run(pre.run_id).is_done(), "the run's end")
    assert restarts(job) == 1
    main(["cancel", "--out", str(tmp_path)])


def test_a_signal_that_comes_twice_before_the_run_hears_it(tmp_path: Path) -> None:
    """The first two seconds of a job's step: submitit's handler is there, the run's is not.

    Sent sooner, it reaches nobody: SLURM signals steps, and says nothing where there is none.
    """
    pre = tasks("mae", 20)[0]
    assert main([*argv(tmp_path, "mae", "20"), "--detach"]) == 0
    job = job_of(tmp_path, pre)
    listed = ["squeue", "--noheader", "--steps", "--jobs", job, "--format", "%i"]
    step = f"{job}.0"
    until(lambda: step in subprocess.run(listed, capture_output=True, text=True).stdout, step)
    for _ in range(2):
        subprocess.run(["scancel", "--signal=USR2", job], check=False)
    until(lambda: Store(tmp_path).run(pre.run_id).is_done(), "the run's end")
    assert restarts(job) >= 1
    main(["cancel", "--out", str(tmp_path)])


def test_a_held_job_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv(tmp_path, "mae", "1"), "--detach"]) == 0
    pre, fin = tasks("mae", 1)
    subprocess.run(["scontrol", "uhold", job_of(tmp_path, fin)], check=True)
    study = next((tmp_path / "studies").iterdir()).name
    until(lambda: Store(tmp_path).run(pre.run_id).is_done(), "the pre-training's end")
    capsys.readouterr()
    assert main(["status", study, "--out", str(tmp_path)]) == 0
    assert f"scontrol release {job_of(tmp_path, fin)}" in capsys.readouterr().out
    subprocess.run(["scontrol", "release", job_of(tmp_path, fin)], check=True)
    until(lambda: Store(tmp_path).run(fin.run_id).is_done(), "the cell's end")
    main(["cancel", "--out", str(tmp_path)])


def test_cancel_kill_and_retry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cancelled once, killed without a signal once, and the numbers are the undisturbed ones."""
    pre = tasks("simmim", LONG)[0]
    assert main([*argv(tmp_path, "simmim", str(LONG)), "--detach"]) == 0
    until(lambda: steps(tmp_path, pre) > 5, "the run's start")
    assert main(["cancel", "--out", str(tmp_path)]) == 0
    until(lambda: status(tmp_path, pre)["state"] == STOPPED, "the cancelled run's stop")
    assert "state saved" in status(tmp_path, pre)["message"]
    first = job_of(tmp_path, pre)
    until(lambda: "JobState=CANCELLED" in show(first), "cancellation")
    stopped_at = status(tmp_path, pre)["step"]
    again = argv(tmp_path, "simmim", str(LONG))
    assert main([*again, "--detach"]) == 0
    assert job_of(tmp_path, pre) != first
    until(lambda: steps(tmp_path, pre) > stopped_at, "going on after the stop")
    os.kill(int(Store(tmp_path).run(pre.run_id).claim().split()[0]), signal.SIGKILL)
    assert main(again) == 0
    assert restarts(job_of(tmp_path, pre)) == 1
    assert outcome(tmp_path, pre) == undisturbed(tmp_path / "here", "simmim", LONG)
    capsys.readouterr()


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "--launcher", "slurm", "--partition", "main", "--json"]
    code = main([*words, "--out", str(tmp_path)])
    found = {f["what"]: f["state"] for f in json.loads(capsys.readouterr().out)}
    assert code == 0, found
    assert found["shared folder"] == found["SIGUSR2 in a job"] == "ok"
    assert main(["doctor", "--launcher", "slurm", "--partition", "mian", "--out", str(tmp_path)])
    assert "no partition 'mian'. Known: main, urgent" in capsys.readouterr().out


def test_sbatch_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = argv(tmp_path, "mae", "1")
    command[command.index("main")] = "mian"
    assert main(command) == 1
    assert capsys.readouterr().err.count("invalid partition specified: mian") == 1
