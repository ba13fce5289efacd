"""Which jobs compute which runs, and what became of them: the files beside the runs say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.submission import Verdict, judge
from bench.store.files import read_json, write_json
from bench.store.folder import now
from bench.store.states import BLOCKED, DONE, FAILED, PENDING, STOPPED
from bench.store.store import Store

PATIENCE = 3
"""Looks without a sign of a job before it counts as lost."""

SETTLE_S = 120.0
"""Seconds a fresh submission may take to be listed."""

FINAL = {DONE, FAILED, BLOCKED, STOPPED}


def note_job(store: Store, run_id: str, job_id: str) -> None:
    """Remembers the job that computes a run, in the run's folder."""
    values = {"job": job_id, "submitted": now()}
    write_json(store.run(run_id).path / "job.json", values, durable=False)


def known_jobs(store: Store, run_ids: Iterable[str]) -> dict[str, str]:
    """Jobs submitted earlier for runs that are not done."""
    found = {}
    for run_id in run_ids:
        folder = store.run(run_id)
        job = read_json(folder.path / "job.json")
        if job is not None and not folder.is_done():
            found[run_id] = str(job["job"])
    return found


def live_jobs(store: Store, run_ids: Iterable[str], scheduler: Scheduler) -> dict[str, str]:
    """Those of :func:`known_jobs` that still wait or work, or were submitted just now."""
    jobs = known_jobs(store, run_ids)
    states = scheduler.states(jobs.values())
    return {
        run_id: job
        for run_id, job in jobs.items()
        if (states[job].alive if job in states else _is_fresh(store, run_id))
    }


def _is_fresh(store: Store, run_id: str) -> bool:
    job = read_json(store.run(run_id).path / "job.json") or {}
    folder = store.run(run_id)
    return now() - job.get("submitted", 0) < SETTLE_S and folder.status()["state"] == PENDING


@dataclass
class Tracker:
    """Follows jobs; each look is one call to the scheduler. ``parents`` maps run to parent."""

    store: Store
    scheduler: Scheduler
    jobs: dict[str, str]
    parents: dict[str, str]
    states: dict[str, str] = field(default_factory=dict)
    _silent: dict[str, int] = field(default_factory=dict)

    def look(self) -> dict[str, str]:
        """The present state of every run, parents first; what was learned is recorded."""
        open_runs = [r for r in self.jobs if self.states.get(r) not in FINAL]
        listed = self.scheduler.states(self.jobs[r] for r in open_runs)
        for run_id in sorted(open_runs, key=lambda r: bool(self.parents[r])):
            folder, job = self.store.run(run_id), listed.get(self.jobs[run_id])
            recorded = DONE if folder.is_done() else folder.status()["state"]
            silent = job is None or job.state == "COMPLETED"
            self._silent[run_id] = self._silent.get(run_id, 0) + 1 if silent else 0
            lost = self._silent[run_id] > PATIENCE
            verdict = judge(job, recorded, self._parent_state(run_id), lost)
            self._record(run_id, verdict)
            self.states[run_id] = verdict.state
        return self.states

    def _parent_state(self, run_id: str) -> str:
        parent = self.parents[run_id]
        if not parent:
            return DONE
        return self.states.get(parent) or self.store.run(parent).status()["state"]

    def _record(self, run_id: str, verdict: Verdict) -> None:
        folder = self.store.run(run_id)
        if verdict.state == BLOCKED:
            folder.set_status(BLOCKED, message=f"waits for {self.parents[run_id]}, which failed")
        elif verdict.message:
            values = {"failure": verdict.failure, "message": verdict.message}
            folder.set_status(verdict.state, **values)

    @property
    def finished(self) -> bool:
        """Whether every run has come to an end."""
        return all(self.states.get(r) in FINAL for r in self.jobs)


def track_folder(store: Store, scheduler: Scheduler) -> Tracker:
    """A tracker of every submitted run in a results folder that is not done."""
    jobs = known_jobs(store, (f.run_id for f in store.folders()))
    configs = {run_id: store.run(run_id).config() or {} for run_id in jobs}
    return Tracker(store, scheduler, jobs, {r: c.get("parent", "") for r, c in configs.items()})
