"""The SLURM driver in trouble: no answers, jobs that cannot start, a driver that dies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.errors import DetachedError, SchedulerError
from bench.launch.slurm import scheduler
from bench.launch.slurm.launcher import Away
from bench.launch.slurm.submission import advice, arrays, shares
from bench.run import main
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
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
    ending,
    finish,
    follow,
    grid,
    job,
    launcher,
)

# --- following through trouble --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["down", "hang"])
def test_a_scheduler_that_is_away_is_waited_for(
    how: str, fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warned of once, and told when it is back; what ended meanwhile is seen in the files."""
    said: list[str] = []
    states: list[dict[str, str]] = []

    def show(runs: Any) -> None:
        states.append({p.task.run_id: p.state for p in runs})
        number = len(states)
        if number == 2:
            fake.change(**{how: ["squeue", "sacct"]})
            monkeypatch.setattr(scheduler, "CALL_S", 1 if how == "hang" else 120)
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
    said: list[str] = []
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

    seen: list[str] = []

    def look() -> None:
        capsys.readouterr()
        assert main(["top", "--once", "--out", str(store.root)]) == 0
        seen.append(" ".join(capsys.readouterr().out.split()))

    said: list[str] = []
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
    said: list[str] = []
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


@pytest.mark.parametrize("most", [2, 3, 5, 9])
def test_array_parallelism_bounds_all_submissions_together(
    most: int, fake: Fake, store: Store
) -> None:
    """Two runs are queued already: six more take what is left, or come after them."""
    site, every = replace(SITE, array_parallelism=most), grid(4)
    detached(store, [every[0], every[4]], site=site)
    earlier = {job(store, every[i]).partition("_")[0] for i in (0, 4)}
    detached(store, every, site=site)
    heads = {j: h for j, h in fake.read()["heads"].items() if h["job-name"] != "bench-report"}
    fresh = [h for j, h in heads.items() if j not in earlier]
    assert len(fresh) == 2
    kinds = [h.get("dependency", "").split(",") for h in fresh]
    after = [
        {i for k in kind if k.startswith("afterany:") for i in k.split(":")[1:]} for kind in kinds
    ]
    at_once = [int(h["array"].partition("%")[2]) for h in fresh]
    if most == 2:
        assert after == [earlier, earlier]
        assert sum(at_once) == most
    elif most == 3:
        assert at_once == [1, 1]
        assert after[0] == set()
        assert after[1], "it comes after the first"
    else:
        assert after == [set(), set()]
        assert sum(at_once) == min(most - 2, 6)


def test_a_submit_limit_is_named_and_the_rest_follows_as_room_comes(
    fake: Fake, store: Store
) -> None:
    """Room for three jobs: two at first, then, as they end, the others."""
    fake.change(limit=3)
    said: list[str] = []
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
    said: list[str] = []
    ended = launcher(store, say=said.append).launch([PRE, FIN], lambda runs: None)
    assert [p.state for p in ended] == [FAILED, BLOCKED]
    assert ended[0].status["message"] == "broken"
    assert said == []
    assert fake.read()["calls"].get("sbatch", 0) == 0


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
