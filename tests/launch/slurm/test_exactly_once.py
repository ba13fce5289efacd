"""Each run is handed to sbatch exactly once, and only jobs of its own are touched."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest

from bench.run import main
from bench.store.files import read_json
from bench.store.states import BLOCKED, DONE, FAILED, STOPPED
from bench.store.store import Store
from tests.support.fake_cluster import (
    ALL,
    FIN,
    OTHER,
    OTHER_FIN,
    PRE,
    Fake,
    detached,
    ending,
    follow,
    job,
    launcher,
)


def _launch(root: Path) -> None:
    launcher(Store(root), detach=True).launch(ALL, lambda runs: None)


def numbers(fake: Fake) -> list[str]:
    """Jobs that still wait or work, less the report's."""
    heads = fake.read()["heads"]
    alive = {j for j, (state, _) in fake.read()["jobs"].items() if state == "PENDING"}
    return sorted(j for j in alive if heads[j.partition("_")[0]]["job-name"] != "bench-report")


@pytest.mark.parametrize("submissions", [0, 1, 2])
def test_a_driver_that_dies_between_two_sbatch_calls(
    submissions: int, fake: Fake, store: Store
) -> None:
    """Killed with a submission accepted that it never heard of: nothing is queued twice."""
    fake.change(die_after=submissions)
    driver = multiprocessing.get_context("spawn").Process(target=_launch, args=(store.root,))
    driver.start()
    driver.join(240)
    assert driver.exitcode == -signal.SIGKILL
    fake.change(die_after=10**6)
    queued = len(fake.read()["jobs"])
    assert queued >= 2 * min(submissions, 1) + 1
    detached(store, ALL)
    assert numbers(fake) == sorted(job(store, task) for task in ALL)
    reports = [h for h in fake.read()["heads"].items() if h[1]["job-name"] == "bench-report"]
    alive = [j for j, _ in reports if fake.read()["jobs"][j][0] == "PENDING"]
    assert len(alive) == 1, "one report"


def test_an_adopted_job_is_not_queued_again(fake: Fake, store: Store) -> None:
    """The scheduler had it and its body was there: only the number was not heard."""
    detached(store, ALL)
    mine = {task.run_id: job(store, task) for task in ALL}
    for task in ALL:
        path = store.run(task.run_id).path / "job.json"
        path.write_text(path.read_text().replace(f'"id": "{mine[task.run_id]}"', '"id": ""'))
    detached(store, ALL)
    assert {task.run_id: job(store, task) for task in ALL} == mine


def new_cluster(fake: Fake, **values: Any) -> None:
    """The same numbers, given to somebody else's jobs."""
    jobs = {i: ["RUNNING", "None"] for i in fake.read()["jobs"]}
    heads = {i: {"job-name": "theirs", "chdir": "/home/them"} for i in fake.read()["heads"]}
    fake.change(jobs=jobs, heads=heads, next=500, **values)


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
@pytest.mark.parametrize("name", ["fake", "other"])
def test_numbers_of_another_cluster_are_not_trusted(
    name: str, ended: bool, fake: Fake, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    detached(store, ALL)
    new_cluster(fake, cluster=name)
    if ended:
        fake.change(jobs={i: ["COMPLETED", "None"] for i in fake.read()["jobs"]})
    before = fake.read()["jobs"]
    assert main(["cancel", "--out", str(store.root)]) == 3
    assert fake.read()["jobs"] == before, "it touched a job that is not its own"
    assert ended or "left alone" in capsys.readouterr().err
    said = " ".join(detached(store, ALL))
    assert all(int(job(store, task).partition("_")[0]) >= 500 for task in ALL)
    assert all(fake.read()["jobs"][i] == state for i, state in before.items())
    wanted = "to the cluster fake, and this is other" if name == "other" else "belong to other jobs"
    assert wanted in said


def test_where_a_site_rewrites_comments_name_and_folder_tell(fake: Fake, store: Store) -> None:
    detached(store, ALL)
    mine = {task.run_id: job(store, task) for task in ALL}
    heads = {i: {**h, "comment": "accounted"} for i, h in fake.read()["heads"].items()}
    fake.change(heads=heads)
    said = detached(store, ALL)
    assert any("0 runs submitted, 4 already" in text for text in said)
    assert {task.run_id: job(store, task) for task in ALL} == mine


def test_cancel_says_what_it_did_and_takes_the_report_along(
    fake: Fake, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    detached(store, ALL)
    (store.root / "studies" / "s" / "plan.json").write_text('{"ids": []}')
    fake.move(job(store, PRE), "RUNNING")
    assert main(["cancel", "--out", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert "report of s" in said
    assert all(f"cancelled job {job(store, t)}: {t.run_id}" in said for t in ALL)
    assert {state for state, _ in fake.read()["jobs"].values()} == {"CANCELLED"}
    status = store.run(FIN.run_id).status()
    assert (status["state"], status["message"]) == (STOPPED, "cancelled before it began")


def test_what_hangs_on_a_cancelled_run_is_cancelled_not_failed(fake: Fake, store: Store) -> None:
    def cancel() -> None:
        assert main(["cancel", PRE.run_id, "--out", str(store.root)]) == 0
        fake.move(job(store, FIN), "CANCELLED")
        ending(fake, store, (OTHER, OTHER_FIN))()

    ended = follow(launcher(store), ALL, {1: cancel})
    assert [ended[t.run_id] for t in ALL] == [STOPPED, DONE, STOPPED, DONE]
    assert store.run(FIN.run_id).status()["message"] == "cancelled with its pre-training"


def test_what_hangs_on_a_failed_run_is_blocked_however_early_it_is_cancelled(
    fake: Fake, store: Store
) -> None:
    """SLURM ends the cell at once; that its pre-training failed is certain some looks later."""

    def fail() -> None:
        fake.move(job(store, PRE), "FAILED")
        fake.move(job(store, FIN), "CANCELLED")

    ended = follow(launcher(store), [PRE, FIN], {1: fail})
    assert ended == {PRE.run_id: FAILED, FIN.run_id: BLOCKED}


def test_two_drivers_submit_once(fake: Fake, store: Store) -> None:
    detached(store, ALL)
    mine = {task.run_id: job(store, task) for task in ALL}
    said = detached(store, ALL)
    assert any("0 runs submitted, 4 already with the scheduler" in text for text in said)
    assert {task.run_id: job(store, task) for task in ALL} == mine
    noted = read_json(store.root / "studies" / "s" / "jobs.json") or {}
    assert noted["jobs"] == mine
