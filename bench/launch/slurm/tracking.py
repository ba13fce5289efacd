"""Which jobs compute which runs, and what became of them: the files beside the runs say so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.api.rules import hints
from bench.launch.base import note
from bench.launch.slurm.scheduler import WAITING, Job, JobState, Scheduler
from bench.launch.slurm.submission import Told, Verdict, advice, judge
from bench.store.files import read_json, write_json
from bench.store.folder import RunFolder, now
from bench.store.shapes import fits
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store

PATIENCE = 3
"""Looks without a sign of a job before it counts as lost."""

SETTLE_S = 120.0
"""Seconds a fresh submission may take to be listed."""

FINAL = {DONE, FAILED, BLOCKED, STOPPED}

WAITS = "waits: "
"""Begins the message of a run whose job cannot start by itself."""


def note_job(store: Store, run_id: str, job: Job) -> None:
    """Remembers the job that computes a run, in the run's folder."""
    path = store.run(run_id).path / "job.json"
    write_json(path, {**asdict(job), "submitted": now()}, durable=False)


def forget_job(store: Store, run_id: str) -> None:
    """Forgets the job of a run."""
    (store.run(run_id).path / "job.json").unlink(missing_ok=True)


def noted_job(folder: RunFolder) -> Job | None:
    """The job that was noted last for a run, ended or not."""
    return job_from(read_json(folder.path / "job.json") or {})


def job_from(values: Mapping[str, Any]) -> Job | None:
    """A job as it was noted; None where what stands there is none."""
    shape = hints(Job)
    known = {f.name: values[f.name] for f in fields(Job) if f.name in values}
    if not known.get("token") or not all(fits(v, shape[k]) for k, v in known.items()):
        return None
    return Job(**known)


def known_jobs(store: Store, run_ids: Iterable[str]) -> dict[str, Job]:
    """Jobs submitted earlier for runs that are not done."""
    found = {r: noted_job(store.run(r)) for r in run_ids if not store.run(r).is_done()}
    return {run_id: job for run_id, job in found.items() if job is not None}


def live_jobs(store: Store, run_ids: Iterable[str], scheduler: Scheduler) -> dict[str, Job]:
    """Those of :func:`known_jobs` that still wait or work, or were submitted just now."""
    jobs = adopt(store, known_jobs(store, run_ids), scheduler)
    states = scheduler.states(jobs.values())
    return {
        run_id: job
        for run_id, job in jobs.items()
        if (states[job.id].alive if job.id in states else _is_fresh(store, run_id, job, scheduler))
    }


def adopt(store: Store, jobs: Mapping[str, Job], scheduler: Scheduler) -> dict[str, Job]:
    """The jobs with numbers; one whose command died before it heard the number is looked for.

    A job that was queued without its body, because the command died in between, is cancelled.
    """
    doubtful = {run_id: job for run_id, job in jobs.items() if not job.id}
    numbers = scheduler.orphans({j.token for j in doubtful.values()}) if doubtful else {}
    found = {run_id: job for run_id, job in jobs.items() if job.id}
    for run_id, job in doubtful.items():
        number = numbers.get(job.token)
        if number is None:
            continue
        whole = replace(job, id=number if job.index < 0 else f"{number}_{job.index}")
        if (Path(job.logs) / f"{whole.id}_submitted.pkl").exists():
            found[run_id] = whole
            note_job(store, run_id, whole)
        else:
            scheduler.cancel([whole.id])
    return found


def _is_fresh(store: Store, run_id: str, job: Job, scheduler: Scheduler) -> bool:
    recent = abs(now() - job.submitted) < SETTLE_S and job.id not in scheduler.strange
    return recent and store.run(run_id).status()["state"] == PENDING


@dataclass
class Tracker:
    """Follows jobs; each look is one call to the scheduler. ``parents`` maps run to parent.

    ``news`` collects what a user should hear of once; ``once`` is for a tracker that looks once.
    """

    store: Store
    scheduler: Scheduler
    jobs: dict[str, Job]
    parents: dict[str, str]
    once: bool = False
    states: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)
    _silent: dict[str, int] = field(default_factory=dict)
    _attempts: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def look(self) -> dict[str, str]:
        """The present state of every run, parents first; what was learned is recorded.

        Raises:
            SchedulerError: if the scheduler does not answer.
        """
        open_runs = self.open_runs()
        listed = self.scheduler.states(self.jobs[r] for r in open_runs)
        for run_id in sorted(open_runs, key=lambda r: bool(self.parents[r])):
            job = listed.get(self.jobs[run_id].id)
            self._notice(run_id, job)
            verdict = self._judge(run_id, job)
            self._record(run_id, verdict)
            self.states[run_id] = verdict.state
        self._tell_reasons()
        return self.states

    def look_at_files(self) -> dict[str, str]:
        """The states as far as the runs' own files tell, while the scheduler is away."""
        for run_id in self.open_runs():
            state = self.store.run(run_id).status()["state"]
            if self.store.run(run_id).is_done():
                self.states[run_id] = DONE
            elif state == RUNNING:
                self.states[run_id] = RUNNING
        return self.states

    def open_runs(self) -> list[str]:
        """Runs that have not come to an end."""
        return [r for r in self.jobs if self.states.get(r) not in FINAL]

    @property
    def finished(self) -> bool:
        """Whether every run has come to an end."""
        return not self.open_runs()

    def _judge(self, run_id: str, job: JobState | None) -> Verdict:
        folder = self.store.run(run_id)
        done = folder.is_done()
        state = DONE if done else str(folder.status()["state"])
        word = DONE if done else str(folder.word()["state"])
        silent = job is None or job.state in ("COMPLETED", "FAILED", "CANCELLED")
        self._silent[run_id] = self._silent.get(run_id, 0) + 1 if silent else 0
        lost = self._silent[run_id] > PATIENCE
        told = Told(state, word, exit_code(self.jobs[run_id]))
        return judge(job, told, self._parent_state(run_id), lost, self.once)

    def _parent_state(self, run_id: str) -> str:
        parent = self.parents[run_id]
        if not parent:
            return DONE
        return self.states.get(parent) or self.store.run(parent).status()["state"]

    def _record(self, run_id: str, verdict: Verdict) -> None:
        """Writes down what the run itself could not; its own word stands."""
        folder = self.store.run(run_id)
        values = {"failure": verdict.failure, "message": verdict.message}
        if verdict.state == BLOCKED:
            values = {"message": f"waits for {self.parents[run_id]}, which failed"}
        own = folder.word()
        same = own["state"] == verdict.state and own.get("message", "") == values["message"]
        spoken = own["state"] in (FAILED, DONE, STOPPED) and verdict.state in (FAILED, STOPPED)
        if values["message"] and not same and not spoken:
            note(folder, verdict.state, **values)

    def _notice(self, run_id: str, job: JobState | None) -> None:
        """Remembers why a job waits, and tells when one that had begun waits again."""
        waiting = job is not None and job.state in WAITING
        self.reasons[run_id] = job.reason if job is not None and waiting else ""
        own = self.store.run(run_id).word()
        attempt = int(own.get("attempt", 0))
        before = self._attempts.setdefault(run_id, attempt)
        if waiting and self.states.get(run_id) == RUNNING:
            why, step = _interrupted(own), own.get("step", 0)
            self.news.append(
                f"{run_id} queued again ({why}), resumes at step {step} as attempt {attempt + 1}"
            )
            self._attempts[run_id] = attempt + 1
        elif attempt > max(before, 1):
            self.news.append(f"{run_id} was queued again and goes on as attempt {attempt}")
            self._attempts[run_id] = attempt

    def _tell_reasons(self) -> None:
        """Notes at each run what its job cannot get over by itself, and tells each reason once."""
        for run_id, reason in self.reasons.items():
            folder, todo = self.store.run(run_id), advice(reason, self.jobs[run_id].id)
            said = str(folder.word().get("message", ""))
            text = f"{WAITS}{reason}; {todo}" if todo and self.states[run_id] == PENDING else ""
            if text != said and (text or said.startswith(WAITS)):
                note(folder, folder.word()["state"], message=text)
            if text and reason not in self._told:
                same = sum(r == reason for r in self.reasons.values()) - 1
                self.news.append(f"{run_id}{f' and {same} more' if same else ''} {text}")
                self._told.add(reason)


def _interrupted(word: Mapping[str, Any]) -> str:
    """Why a run waits again, from what it wrote when it was stopped."""
    said = str(word.get("message", ""))
    if word["state"] == STOPPED and "SIGUSR2" in said:
        return "its time limit was near"
    if word["state"] == STOPPED and "SIGTERM" in said:
        return "pre-empted"
    return "killed, or its node failed"


def exit_code(job: Job) -> int | None:
    """The last exit code that the script of a job wrote down, None if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        name = job.token if job.index < 0 else f"{job.token}_{job.index}"
        return int((Path(job.logs) / f"{name}.exit").read_text().split()[-1])
    return None


def job_output(folder: RunFolder) -> list[Path]:
    """What the processes of a run's last job wrote to their standard errors, where it is there."""
    job = noted_job(folder)
    if job is None or not job.id:
        return []
    return sorted(p for p in Path(job.logs).glob(f"{job.id}_*_log.err") if p.stat().st_size)


def track_folder(store: Store, scheduler: Scheduler) -> Tracker:
    """A tracker of every submitted run in a results folder that is not done."""
    jobs = known_jobs(store, (f.run_id for f in store.folders()))
    jobs = {run_id: job for run_id, job in jobs.items() if job.id}
    configs = {run_id: store.run(run_id).config() or {} for run_id in jobs}
    parents = {r: c.get("parent", "") for r, c in configs.items()}
    return Tracker(store, scheduler, jobs, parents, once=True)
