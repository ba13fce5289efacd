"""The SLURM driver in trouble: no answers, jobs that cannot start, a driver that dies."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import DetachedError, SchedulerError
from bench.launch.slurm import scheduler
from bench.launch.slurm.launcher import Away
from bench.launch.slurm.submission import advice, arrays, shares
from bench.run import main
from bench.store.files import read_json
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store
from tests.launch.slurm.test_launcher import grid
from tests.support.fake_cluster import (
    ALL,
    FIN,
    OTHER,
    OTHER_FIN,
    PRE,
    SITE,
    Fake,
    finish,
    follow,
    job,
    launcher,
)

Words = list[str]


def ending(fake: Fake, store: Store, every: Any) -> Callable[[], None]:
    def end() -> None:
        for task in every:
            fake.move(job(store, task), "COMPLETED")
            finish(store, task)

    return end


def detached(store: Store, every: Any, **values: Any) -> Words:
    """Submits and leaves; what was said."""
    said: Words = []
    with pytest.raises(DetachedError):
        launcher(store, detach=True, say=said.append, **values).launch(every, lambda runs: None)
    return said


# --- following through trouble --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["down", "hang"])
def test_a_scheduler_that_is_away_is_waited_for(
    how: str, fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warned of once, and told when it is back; what ended meanwhile is seen in the files."""
    said: Words = []
    states: list[dict[str, str]] = []

    def show(runs: Any) -> None:
        states.append({p.task.run_id: p.state for p in runs})
        number = len(states)
        if number == 2:
            fake.change(**{how: ["squeue", "sacct"]})
            monkeypatch.setattr(scheduler, "CALL_S", 2 if how == "hang" else 120)
        elif number == 3:
            finish(store, PRE)
        elif number == 5:
            monkeypatch.setattr(scheduler, "CALL_S", 120)
            fake.change(**{how: []})
            ending(fake, store, ALL)()

    launcher(store, say=said.append).launch(ALL, show)
    assert set(states[-1].values()) == {DONE}
    assert states[4][PRE.run_id] == DONE, "its record is there"
    assert sum("warning: 'squeue'" in text for text in said) == 1
    assert sum("answers again, after" in text for text in said) == 1


def test_looks_grow_rarer_while_there_is_no_answer() -> None:
    said: Words = []
    away = Away(said.append, 30.0)
    waits = []
    for _ in range(8):
        away.failed(SchedulerError("no answer"))
        waits.append(away.wait_s)
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == 600.0
    away.answered()
    assert away.wait_s == 30.0
    assert len(said) == 2


def test_only_a_missing_command_ends_the_driver(
    fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        monkeypatch.setenv("PATH", str(fake.path.parent))  # real ones may be installed
        for name in ("squeue", "sacct"):
            (fake.path.parent / name).unlink()

    with pytest.raises(DetachedError, match=r"no command 'squeue'.*the same command comes back"):
        follow(launcher(store), ALL, {1: remove})


# --- jobs that cannot start -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "todo"),
    [
        ("JobHeldUser", "scontrol release 7_1"),
        ("JobHeldAdmin", "administrator"),
        ("PartitionDown", "another --partition"),
        ("PartitionNodeLimit", "fewer --nodes"),
        ("PartitionTimeLimit", "--timeout"),
        ("QOSMaxCpuPerUserLimit", "ask for less"),
        ("QOSMaxGRESPerJob", "--ngpus"),
        ("(launch failed requeued held)", "scontrol release 7_1"),
        ("(job requeued in held state)", "scontrol release 7_1"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "sinfo -R"),
    ],
)
def test_reasons_that_do_not_pass_have_advice(reason: str, todo: str) -> None:
    assert todo in advice(reason, "7_1")


@pytest.mark.parametrize("reason", ["Priority", "Resources", "Dependency", "BeginTime", "None"])
def test_reasons_that_pass_have_none(reason: str) -> None:
    assert advice(reason, "7") == ""


def test_a_held_job_says_why_it_does_not_start(
    fake: Fake, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def hold() -> None:
        for task in (PRE, OTHER):
            fake.move(job(store, task), "PENDING", "JobHeldUser")

    seen: Words = []

    def look() -> None:
        capsys.readouterr()
        assert main(["top", "--once", "--out", str(store.root)]) == 0
        seen.append(" ".join(capsys.readouterr().out.split()))

    said: Words = []
    script = {1: hold, 4: look, 6: ending(fake, store, ALL)}
    assert set(follow(launcher(store, say=said.append), ALL, script).values()) == {DONE}
    told = [text for text in said if "JobHeldUser" in text]
    assert len(told) == 1, said
    assert "and 1 more waits: JobHeldUser; you hold it: 'scontrol release" in told[0]
    assert "JobHeldUser" in seen[0]


def test_status_shows_the_schedulers_reason(
    fake: Fake, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    detached(store, ALL)
    (store.root / "studies" / "s" / "plan.json").write_text(f'{{"ids": ["{FIN.run_id}"]}}')
    fake.move(job(store, PRE), "PENDING", "Resources")
    assert main(["status", "s", "--out", str(store.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(PRE.run_id in x and "waits: Resources" in x for x in lines)
    assert any(FIN.run_id in x and "waits: Dependency" in x for x in lines)
    fake.change(down=["squeue"])
    assert main(["status", "s", "--out", str(store.root)]) == 0
    assert "states are as the runs' files tell them" in capsys.readouterr().err


# --- exactly once, and only its own ---------------------------------------------------------------


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


# --- a run's own word -----------------------------------------------------------------------------


def test_what_a_run_recorded_is_not_overwritten(fake: Fake, store: Store) -> None:
    """Its job ends before the folder shows what the run wrote, as on a slow file system."""

    def end() -> None:
        fake.move(job(store, PRE), "FAILED")
        fake.move(job(store, OTHER), "FAILED")
        store.run(OTHER.run_id).set_status(STOPPED, message="stopped by SIGTERM, state saved")

    def late() -> None:
        store.run(PRE.run_id).set_status(FAILED, failure="non-finite", message="diverged")
        for task in (FIN, OTHER_FIN):
            fake.move(job(store, task), "CANCELLED")

    ended = follow(launcher(store), ALL, {1: end, 3: late})
    assert [ended[t.run_id] for t in ALL] == [FAILED, STOPPED, BLOCKED, STOPPED]
    assert store.run(PRE.run_id).status()["failure"] == "non-finite"
    assert "state saved" in store.run(OTHER.run_id).status()["message"]


def test_a_pre_empted_run_is_told_and_counted(fake: Fake, store: Store) -> None:
    said: Words = []
    folder = store.run(PRE.run_id)

    def begin() -> None:
        fake.move(job(store, PRE), "RUNNING")
        folder.set_status(RUNNING, attempt=1, step=70, total=100)

    def pre_empt() -> None:
        folder.set_status(STOPPED, message="stopped by SIGTERM, state saved at step 70")
        fake.move(job(store, PRE), "PENDING", "BeginTime")

    def again() -> None:
        fake.move(job(store, PRE), "RUNNING")
        folder.set_status(RUNNING, attempt=2, message="")

    def unseen() -> None:
        folder.set_status(RUNNING, attempt=3)

    script = {1: begin, 3: pre_empt, 5: again, 7: unseen, 9: ending(fake, store, [PRE, FIN])}
    follow(launcher(store, say=said.append), [PRE, FIN], script)
    told = [text.removeprefix(PRE.run_id).strip() for text in said if "queued again" in text]
    assert told == [
        "queued again (pre-empted), resumes at step 70 as attempt 2",
        "was queued again and goes on as attempt 3",
    ]


# --- how much at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("largest", [5, 1000])
def test_array_parallelism_bounds_all_arrays_together(most: int, largest: int) -> None:
    found = arrays(grid(30, cells=2), {}, largest)
    bounds = shares(found, most)
    assert all(1 <= share <= len(a.tasks) for a, (share, _) in zip(found, bounds, strict=True))
    lanes: dict[int, int] = {}  # what waits for one another never runs together
    for number, (share, after) in enumerate(bounds):
        assert after < number
        lane = number if after < 0 else number % most
        lanes[lane] = max(lanes.get(lane, 0), share)
        assert after in (-1, number - most)
    total = sum(len(a.tasks) for a in found)
    assert sum(lanes.values()) <= most
    assert len(found) > most or sum(lanes.values()) == min(most, total)


def test_one_at_a_time_is_one_at_a_time(fake: Fake, store: Store) -> None:
    detached(store, ALL, site=replace(SITE, array_parallelism=1))
    heads = {j: h for j, h in fake.read()["heads"].items() if h["job-name"] != "bench-report"}
    first, second = heads
    assert heads[first]["array"] == heads[second]["array"] == "0-1%1"
    assert heads[second]["dependency"] == f"aftercorr:{first},afterany:{first}"


def test_a_submit_limit_is_named_and_the_rest_follows_as_room_comes(
    fake: Fake, store: Store
) -> None:
    """Room for three jobs: two at first, then, as they end, the others."""
    fake.change(limit=3)
    said: Words = []
    every = grid(3)
    seen: list[int] = []

    def end_some(runs: Any) -> None:
        assert len(seen) < 60, "never ends"
        jobs = fake.read()["jobs"]
        seen.append(sum(state == "PENDING" for state, _ in jobs.values()))
        alive = [t for t in every if (store.run(t.run_id).path / "job.json").exists()]
        for task in alive:
            if not store.run(task.run_id).is_done():
                fake.move(job(store, task), "COMPLETED")
                finish(store, task)
                break

    ended = launcher(store, say=said.append).launch(every, end_some)
    assert {p.state for p in ended} == {DONE}
    assert max(seen) <= 3
    told = [text for text in said if "wait for room in the queue" in text]
    assert len(told) == 1
    assert "QOSMaxSubmitJobPerUserLimit" in told[0]


def test_a_limit_that_leaves_no_room_at_all_is_an_error(fake: Fake, store: Store) -> None:
    fake.change(limit=0)
    with pytest.raises(SchedulerError, match="QOSMaxSubmitJobPerUserLimit") as refused:
        launcher(store).launch(ALL, lambda runs: None)
    assert str(refused.value).count("QOSMaxSubmitJobPerUserLimit") == 1, "sbatch's words once"
    assert not list(store.runs.glob("*/job.json"))


def test_a_refusal_leaves_the_reason_of_the_first_attempt(fake: Fake, store: Store) -> None:
    store.register(PRE)
    store.run(PRE.run_id).set_status(FAILED, failure="oom", message="too large")
    fake.change(refuse="Batch job submission failed: Invalid account")
    with pytest.raises(SchedulerError):
        launcher(store, retry=True).launch([PRE], lambda runs: None)
    status = store.run(PRE.run_id).status()
    assert (status["state"], status["failure"], status["message"]) == (FAILED, "oom", "too large")


def test_nothing_left_to_submit_names_no_jobs(fake: Fake, store: Store) -> None:
    for task in (PRE, FIN):
        store.register(task)
    store.run(PRE.run_id).set_status(FAILED, failure="code", message="broken")
    said: Words = []
    ended = launcher(store, say=said.append).launch([PRE, FIN], lambda runs: None)
    assert [p.state for p in ended] == [FAILED, BLOCKED]
    assert ended[0].status["message"] == "broken"
    assert said == []
    assert fake.read()["calls"].get("sbatch", 0) == 0


def test_two_drivers_submit_once(fake: Fake, store: Store) -> None:
    detached(store, ALL)
    mine = {task.run_id: job(store, task) for task in ALL}
    said = detached(store, ALL)
    assert any("0 runs submitted, 4 already with the scheduler" in text for text in said)
    assert {task.run_id: job(store, task) for task in ALL} == mine
    noted = read_json(store.root / "studies" / "s" / "jobs.json") or {}
    assert noted["jobs"] == mine


def test_log_shows_the_jobs_own_errors_where_the_run_wrote_nothing(
    fake: Fake, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    detached(store, ALL)
    path = store.root / "jobs" / f"{job(store, PRE)}_0_log.err"
    path.write_text("\n".join(f"line {k}" for k in range(50)) + "\nModuleNotFoundError: torch\n")
    assert main(["log", PRE.run_id, "--out", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert "ModuleNotFoundError: torch" in said
    assert "line 49" in said
    assert "line 10\n" not in said
    assert PENDING in said
