"""The SLURM launcher against fake commands: what one node cannot show."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DetachedError, SchedulerError
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.site import load_site
from bench.launch.slurm.submission import arrays
from bench.plan.study import CELL
from bench.run import main
from bench.store.states import BLOCKED, DONE, FAILED
from bench.store.store import Store
from tests.support.fake_cluster import (
    ALL,
    FIN,
    OTHER,
    OTHER_FIN,
    PRE,
    SITE,
    Fake,
    detached,
    finish,
    follow,
    grid,
    job,
    launcher,
)
from tests.support.tiny_runs import TINY

GOLDEN = Path(__file__).parents[2] / "golden" / "slurm"


@pytest.mark.parametrize("accounting", [True, False], ids=["sacct", "no sacct"])
def test_everything_goes_well(accounting: bool, fake: Fake, store: Store) -> None:
    fake.change(down=[] if accounting else ["sacct"])

    def run_all() -> None:
        for task in ALL:
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    ended = follow(launcher(store), ALL, {1: run_all})
    assert set(ended.values()) == {DONE}


FATES = [
    ("NODE_FAIL", "node", "the node failed"),
    ("OUT_OF_MEMORY", "oom", "killed for using more memory than asked for"),
    ("TIMEOUT", "time-out", "the time limit passed"),
    ("FAILED", "code", "the job ended before its run began; see its log"),
    ("BOOT_FAIL", "node", "the node did not boot"),
]


@pytest.mark.parametrize(("state", "failure", "message"), FATES)
def test_fate_of_a_job(state: str, failure: str, message: str, fake: Fake, store: Store) -> None:
    def fail() -> None:
        fake.move(job(store, PRE), state)
        fake.move(job(store, FIN), "PENDING", "DependencyNeverSatisfied")
        for task in (OTHER, OTHER_FIN):
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    ended = follow(launcher(store), ALL, {1: fail})
    assert [ended[t.run_id] for t in ALL] == [FAILED, DONE, BLOCKED, DONE]
    status = store.run(PRE.run_id).status()
    assert (status["failure"], status["message"]) == (failure, message)
    assert PRE.run_id in store.run(FIN.run_id).status()["message"]


def test_a_requeued_node_failure_is_waited_for(fake: Fake, store: Store) -> None:
    def fail() -> None:
        fake.move(job(store, PRE), "PENDING", "BeginTime")

    def end() -> None:
        for task in (PRE, FIN):
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    run = {0: lambda: fake.move(job(store, PRE), "RUNNING"), 2: fail, 5: end}
    assert set(follow(launcher(store), [PRE, FIN], run).values()) == {DONE}


def test_cells_that_wait_are_not_lost_however_long_it_takes(fake: Fake, store: Store) -> None:
    def end() -> None:
        for task in (PRE, FIN):
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    ended = follow(launcher(store), [PRE, FIN], {20: end})
    assert set(ended.values()) == {DONE}
    calls = fake.read()["calls"]
    assert calls["sacct"] <= 2, "sacct is asked only about jobs that left the queue"
    assert calls["squeue"] <= 25, "one call a look"


def test_sacct_goes_down_on_the_way(fake: Fake, store: Store) -> None:
    def end() -> None:
        for task in (PRE, FIN):
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    ended = follow(launcher(store), [PRE, FIN], {1: lambda: fake.change(down=["sacct"]), 4: end})
    assert set(ended.values()) == {DONE}


def test_a_job_that_leaves_no_trace_is_lost_not_waited_for(fake: Fake, store: Store) -> None:
    def purge() -> None:
        fake.forget(job(store, PRE))
        fake.move(job(store, FIN), "PENDING", "DependencyNeverSatisfied")

    ended = follow(launcher(store), [PRE, FIN], {1: purge})
    assert ended == {PRE.run_id: FAILED, FIN.run_id: BLOCKED}
    assert "left the queue" in store.run(PRE.run_id).status()["message"]


def test_sbatch_refuses(fake: Fake, store: Store) -> None:
    words = "Batch job submission failed: Invalid account or account/partition combination"
    fake.change(refuse=words)
    with pytest.raises(SchedulerError, match="Invalid account") as refused:
        launcher(store).launch(ALL, lambda runs: None)
    assert "--account" in str(refused.value)
    assert str(refused.value).count(words) == 1
    assert not list(store.runs.glob("*/job.json"))


def test_a_late_refusal_leaves_nothing_queued(fake: Fake, store: Store) -> None:
    fake.change(refuse="Batch job submission failed: Invalid qos specification", refuse_after=1)
    with pytest.raises(SchedulerError, match="Invalid qos"):
        launcher(store).launch(ALL, lambda runs: None)
    assert {s for s, _ in fake.read()["jobs"].values()} == {"CANCELLED"}
    assert not list(store.runs.glob("*/job.json"))


def test_runs_are_worth_more_than_their_report(fake: Fake, store: Store, capsys: Any) -> None:
    fake.change(refuse="Batch job submission failed: you must ask for a GPU", refuse_after=2)
    detached(store, ALL)
    assert "the report was not queued, 'report' makes it" in capsys.readouterr().err
    assert {s for s, _ in fake.read()["jobs"].values()} == {"PENDING"}
    assert all(job(store, task) for task in ALL)


def test_the_report_asks_for_little_memory(fake: Fake, store: Store) -> None:
    detached(store, ALL, site=replace(SITE, mem_gb=200))
    heads = fake.read()["heads"].values()
    asked = {h["job-name"]: h["mem"] for h in heads}
    assert asked == dict.fromkeys(("bench-pretrain", "bench-cell"), "204800MB") | {
        "bench-report": "8192MB"
    }


def test_a_job_inherits_nothing_of_the_allocation_it_is_submitted_from(
    fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CPU_BIND", "SLURM_CPUS_PER_TASK", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "x")
    detached(store, [PRE])
    assert fake.read()["heard"]["SLURM_CPU_BIND"] == "x"  # outside of a job a shell means it so
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    detached(store, [OTHER])
    assert fake.read()["heard"] == {"SLURM_CONF": "x", "SBATCH_ACCOUNT": "x"}
    assert os.environ["SLURM_JOB_ID"] == "1"


def test_a_second_command_on_a_study_counts_what_the_first_has_queued(
    fake: Fake, store: Store
) -> None:
    """Its runs come behind, and the report that goes on waits for both."""
    site = replace(SITE, array_parallelism=2)
    detached(store, [PRE, FIN], site=site)
    first = [job(store, task) for task in (PRE, FIN)]
    detached(store, [OTHER, OTHER_FIN], site=site)
    heads = fake.read()["heads"]
    reports = {number for number, head in heads.items() if head["job-name"] == "bench-report"}
    waiting = [n for n, (state, _) in fake.read()["jobs"].items() if state == "PENDING"]
    (report,) = reports & set(waiting)
    awaited = set(heads[report]["dependency"].partition(":")[2].split(":"))
    assert awaited == {*first, *(job(store, task) for task in (OTHER, OTHER_FIN))}
    behind = heads[job(store, OTHER)]["dependency"]
    assert behind == f"afterany:{':'.join(sorted(first, key=int))}"


def test_no_slurm_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SchedulerError, match="login node"):
        launcher(store).launch(ALL, lambda runs: None)


def test_detach_and_come_back(fake: Fake, store: Store) -> None:
    with pytest.raises(DetachedError) as away:
        launcher(store, detach=True).launch(ALL, lambda runs: None)
    assert away.value.exit_code == 0
    before = fake.read()["next"]

    def interrupt(runs: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(DetachedError) as away:
        launcher(store).launch(ALL, interrupt)
    assert away.value.exit_code == 130
    for task in ALL:
        fake.move(job(store, task), "COMPLETED")
        finish(store, task)
    assert set(follow(launcher(store), ALL, {}).values()) == {DONE}
    assert fake.read()["next"] == before, "submitted again"


def test_a_cancelled_run_is_submitted_again(fake: Fake, store: Store) -> None:
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch([PRE, FIN], lambda runs: None)
    first = job(store, PRE)
    assert main(["cancel", "--out", str(store.root)]) == 0
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch([PRE, FIN], lambda runs: None)
    assert job(store, PRE) != first


def test_cancel_leaves_ended_jobs_alone(fake: Fake, store: Store, capsys: Any) -> None:
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch([PRE, FIN], lambda runs: None)
    fake.move(job(store, PRE), "FAILED")
    assert main(["cancel", "--out", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert f"cancelled job {job(store, FIN)}: {FIN.run_id}" in said
    assert PRE.run_id not in said
    states = fake.read()["jobs"]
    assert states[job(store, PRE)][0] == "FAILED"
    assert states[job(store, FIN)][0] == "CANCELLED"


def test_cells_of_a_parent_that_waits_follow_that_job(fake: Fake, store: Store) -> None:
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch([PRE], lambda runs: None)
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch([PRE, FIN], lambda runs: None)
    dependencies = fake.read()["dependencies"]
    assert dependencies[job(store, FIN)] == f"afterok:{job(store, PRE)}"


def test_arrays_line_up_with_their_parents() -> None:
    every = grid(10, cells=3)
    found = arrays(every, {}, 4)
    assert max(len(a.tasks) for a in found) <= 4
    submitted = [t.run_id for a in found for t in a.tasks]
    assert sorted(submitted) == sorted(t.run_id for t in every)
    for array in found:
        if array.follows >= 0:
            parents = found[array.follows].tasks[: len(array.tasks)]
            assert [t.parent for t in array.tasks] == [p.run_id for p in parents]


def test_cells_of_finished_parents_wait_for_nothing() -> None:
    found = arrays([t for t in grid(3) if t.stage == CELL], {}, 100)
    assert [(len(a.tasks), a.follows, a.waits) for a in found] == [(3, -1, "")]


@pytest.mark.slow
def test_a_thousand_cells_in_few_calls(fake: Fake, store: Store) -> None:
    every = grid(1000)
    fake.change(max_array=301)
    begun = time.monotonic()
    with pytest.raises(DetachedError):
        launcher(store, detach=True).launch(every, lambda runs: None)
    calls = fake.read()["calls"]
    assert calls["sbatch"] == 2 * 4 + 1
    assert sum(calls.values()) <= 12
    assert time.monotonic() - begun < 60
    looks = calls.get("squeue", 0)

    def end() -> None:
        jobs = fake.read()["jobs"]
        fake.change(jobs={i: ["COMPLETED", "None"] for i in jobs})
        for task in every:
            (store.run(task.run_id).path / "record.json").write_text('{"run_id": ""}')

    ended = follow(launcher(store), every, {0: end})
    assert set(ended.values()) == {DONE}
    assert fake.read()["calls"]["squeue"] - looks <= 4


def shown(text: str, store: Store) -> str:
    text = text.replace(str(store.root), "OUT").replace(sys.executable, "PYTHON")
    text = re.sub(r"(mto-bench:|jobs/)[0-9a-f]{12}", r"\1TOKEN", text)
    return re.sub(r"code/[0-9a-f]{12}", "code/SNAPSHOT", text)


SITES = {
    "plain": SITE,
    "full": load_site(
        str(Path(__file__).parents[3] / "slurm" / "site.example.toml"),
        {"nodes": 2, "job_dir": None},
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_golden_submission_scripts(name: str, fake: Fake, store: Store) -> None:
    with pytest.raises(DetachedError):
        launcher(store, SITES[name], detach=True).launch(ALL, lambda runs: None)
    scripts = [shown(s, store) for s in fake.read()["scripts"].values()]
    text = "\n".join(scripts)
    path = GOLDEN / f"{name}.sh"
    if not path.exists():  # delete the file to write it anew
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was missing and has been written: read it")
    assert text == path.read_text()


def test_no_jobs_no_call(fake: Fake) -> None:
    assert Scheduler(True).states([]) == {}
    assert fake.read()["calls"] == {}


def test_too_many_processes_for_a_batch(tmp_path: Path, capsys: Any, fake: Fake) -> None:
    words = ["--preset", "procedural", "--methods", "mae", "--epochs", "1", "--seeds", "1", *TINY]
    more = ["--launcher", "slurm", "--ngpus", "8", "--out", str(tmp_path / "o")]
    assert main([*words, *more]) == 2
    assert "8 processes cannot share a batch of 8 images" in capsys.readouterr().err
    assert fake.read()["calls"] == {}
