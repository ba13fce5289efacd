"""Handing runs to sbatch, each exactly once: what is asked for is noted before, its number at once.

A command that dies in between finds its jobs again by the word it left in their comment.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import SchedulerError
from bench.launch.slurm.job import ReportJob, SlurmRun
from bench.launch.slurm.scheduler import LIMIT, MARK, Cluster, Job, Scheduler, this_cluster
from bench.launch.slurm.site import Site
from bench.launch.slurm.submission import Array, arrays, shares
from bench.launch.slurm.tracking import forget_job, job_from, live_jobs, note_job
from bench.launch.snapshot import take_snapshot
from bench.plan.config import Resources
from bench.plan.study import PRETRAIN, Task
from bench.store.files import read_json, write_json
from bench.store.states import PENDING
from bench.store.store import Store

OF_THE_SHELL = ("SLURM_CONF", "SLURM_CLUSTERS")
"""Variables that say which cluster is meant, in a job as outside of one."""

REPORT_GB = 8
"""Memory that the report asks for at most."""


class LimitError(SchedulerError):
    """No more jobs may be queued now; when some have ended, more may."""


@dataclass(frozen=True)
class Submitted:
    """What a submission came to: jobs by run, and runs that no limit left room for."""

    jobs: dict[str, Job] = field(default_factory=dict)
    held: tuple[Task, ...] = ()
    limit: str = ""


@dataclass
class Submitter:
    """Submits the runs of a study; ``study`` is its folder."""

    store: Store
    resources: Resources
    site: Site
    study: Path

    @property
    def job_dir(self) -> Path:
        """Folder of scripts, pickles and logs of the jobs."""
        return Path(self.site.job_dir or self.store.root / "jobs").absolute()

    def submit(self, tasks: Sequence[Task], live: Mapping[str, Job]) -> Submitted:
        """Queues the tasks as job arrays, each cell behind its pre-training, and the report.

        Raises:
            SchedulerError: if the scheduler refuses; nothing of this call stays queued.
        """
        place = Place(take_snapshot(self.store.root.absolute() / "code"), this_cluster())
        jobs: dict[str, Job] = {}
        try:
            done = self._submit_all(tasks, live, jobs, place)
            self._submit_report({**live, **jobs}, place)
        except BaseException:
            with contextlib.suppress(SchedulerError):
                Scheduler(False).cancel(job.id for job in jobs.values())
                for run_id in jobs:
                    forget_job(self.store, run_id)
            raise
        return done

    def others(self, tasks: Sequence[Task], scheduler: Scheduler) -> dict[str, Job]:
        """Jobs that wait or work for the study by earlier submissions of other tasks."""
        kept = read_json(self.study / "jobs.json") or {}
        noted = kept.get("jobs") if isinstance(kept, dict) else None
        known = set(noted) if isinstance(noted, dict) else set()
        return live_jobs(self.store, sorted(known - {t.run_id for t in tasks}), scheduler)

    def submit_one(self, body: Any, stage: str, snapshot: Path) -> Job:
        """Submits a job of its own that runs ``body``."""
        place = Place(snapshot, Cluster("", 1))
        job = self._new_job(stage, place)
        return replace(job, id=self._sbatch([body], self._parameters(job, stage, []))[0])

    def _submit_all(
        self, tasks: Sequence[Task], live: Mapping[str, Job], jobs: dict[str, Job], place: Place
    ) -> Submitted:
        """Array by array; at a limit in smaller ones, and what then finds no room is held."""
        left, largest = list(tasks), place.cluster.max_array
        while left:
            queued = {r: j.id for r, j in {**live, **jobs}.items()}
            found = arrays(left, queued, largest)
            try:
                self._submit_arrays(found, queued, jobs, place)
                return Submitted(jobs)
            except LimitError as error:
                left = [t for t in left if t.run_id not in jobs]
                refused = max(len(a.tasks) for a in found if a.tasks[0].run_id not in jobs)
                largest = refused // 2
                if not largest and not jobs and not live:
                    raise
                if not largest:
                    return Submitted(jobs, tuple(left), str(error))
        return Submitted(jobs)

    def _submit_arrays(
        self,
        found: Sequence[Array],
        queued: Mapping[str, str],
        jobs: dict[str, Job],
        place: Place,
    ) -> None:
        """Takes what earlier submissions leave of the runs at once, or else comes after them."""
        first: list[str] = []
        room = self.site.array_parallelism - len(queued)
        bounds = shares(found, room if room > 0 else self.site.array_parallelism)
        full = sorted({_base(i) for i in queued.values()}, key=int) if room <= 0 else []
        for array, (share, after) in zip(found, bounds, strict=True):
            waits = [f"afterok:{array.waits}"] if array.waits else []
            if array.follows >= 0 and len(array.tasks) > 1:
                waits.append(f"aftercorr:{_base(first[array.follows])}")
            elif array.follows >= 0:
                waits.append(f"afterok:{first[array.follows]}")
            behind = [_base(first[after])] if after >= 0 else full
            waits += [f"afterany:{':'.join(behind)}"] if behind else []
            mine = self._submit_array(array, share, waits, place)
            jobs |= mine
            first.append(next(iter(mine.values())).id)

    def _submit_array(
        self, array: Array, share: int, waits: Sequence[str], place: Place
    ) -> dict[str, Job]:
        stage = array.tasks[0].stage
        shared = self._new_job(stage, place)
        several = len(array.tasks) > 1
        asked = {
            t.run_id: replace(shared, index=i if several else -1) for i, t in enumerate(array.tasks)
        }
        earlier = {run_id: self.store.run(run_id).word() for run_id in asked}
        for task in array.tasks:
            self.store.register(task)
            if earlier[task.run_id]["state"] != PENDING:
                self.store.run(task.run_id).set_status(PENDING, failure="", message="")
            note_job(self.store, task.run_id, asked[task.run_id])
        root = self.store.root.absolute()
        site = self.site
        moved = (site.stage, site.stage_from)
        bodies = [SlurmRun(root, r, self.resources, site.max_requeues, *moved) for r in asked]
        parameters = self._parameters(shared, stage, waits)
        try:
            ids = self._sbatch(bodies, {**parameters, "array_parallelism": share})
        except SchedulerError:
            for run_id, status in earlier.items():
                forget_job(self.store, run_id)
                self.store.run(run_id).set_status(**status)
            raise
        mine = {r: replace(job, id=i) for (r, job), i in zip(asked.items(), ids, strict=True)}
        for run_id, job in mine.items():
            note_job(self.store, run_id, job)
        return mine

    def _submit_report(self, jobs: Mapping[str, Job], place: Place) -> None:
        """The report behind all jobs; the one of an earlier launch goes. None where none fits."""
        path = self.study / "jobs.json"
        cancel_report(self.study, Scheduler(False))
        bases = sorted({_base(j.id) for j in jobs.values()}, key=int)
        body = ReportJob(self.store.root.absolute(), self.study.name)
        job = self._new_job("report", place)
        noted = {"jobs": {r: j.id for r, j in jobs.items()}, "job_dir": str(self.job_dir)}
        parameters = self._parameters(job, "report", ["afterany:" + ":".join(bases)])
        small: dict[str, Any] = {"nodes": 1, "ntasks_per_node": 1, "time": 60}
        small["signal_delay_s"] = min(60, self.site.signal_delay_s)
        if self.site.mem_gb > REPORT_GB:
            small["mem"] = f"{REPORT_GB * 1024}MB"
        parameters.pop("gpus_per_node", None)
        write_json(path, {**noted, "report": asdict(job)})
        try:
            job = replace(job, id=self._sbatch([body], {**parameters, **small})[0])
            write_json(path, {**noted, "report": asdict(job)})
        except SchedulerError as error:  # the runs are queued, and worth more than their report
            write_json(path, noted)
            if not isinstance(error, LimitError):
                print(f"the report was not queued, 'report' makes it: {error}", file=sys.stderr)

    def _new_job(self, stage: str, place: Place) -> Job:
        return Job(
            token=os.urandom(6).hex(),
            name=f"bench-{stage}",
            place=str(place.snapshot),
            cluster=place.cluster.name,
            logs=str(self.job_dir),
        )

    def _sbatch(self, bodies: Sequence[Any], parameters: dict[str, Any]) -> list[str]:
        """Submits one array (or a single job) and returns its ids."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        python = self.site.python or shlex.quote(sys.executable)
        executor = submitit.SlurmExecutor(folder=self.job_dir, python=python)
        executor.update_parameters(**parameters)
        spoken = io.StringIO()  # submitit prints what sbatch says, and raises it
        try:
            with _outside_of_a_job(), contextlib.redirect_stderr(spoken), executor.batch():
                jobs = [executor.submit(body) for body in bodies]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = refusal(error)
            if LIMIT.search(said):
                raise LimitError(f"no more jobs may be queued now: {said}") from error
            raise SchedulerError(
                f"sbatch refused the job: {said}. Check --partition, --account, --qos "
                "and --timeout against 'sinfo'; nothing of this launch was left in the queue."
            ) from error
        print(spoken.getvalue(), end="", file=sys.stderr)
        return [job.job_id for job in jobs]

    def _parameters(self, job: Job, stage: str, waits: Sequence[str]) -> dict[str, Any]:
        site, dependency = self.site, ",".join(waits)
        cell_min = site.cell_timeout_min or site.timeout_min
        given = {
            "job_name": job.name,
            "time": site.timeout_min if stage == PRETRAIN else cell_min,
            "nodes": site.nodes,
            "ntasks_per_node": site.tasks,
            "gpus_per_node": site.gpus_per_node,
            "cpus_per_task": site.cpus_per_task,
            "mem": f"{round(site.mem_gb * 1024)}MB" if site.mem_gb else "",
            "partition": site.partition,
            "account": site.account,
            "qos": site.qos,
            "constraint": site.constraint,
            "exclude": site.exclude,
            "comment": f"{site.comment} {MARK}{job.token}".strip(),
            "dependency": dependency,
        }
        extra: dict[str, Any] = {name: value or True for name, value in site.additional}
        extra |= {"requeue": True, "chdir": job.place}
        if "afterok" in dependency or "aftercorr" in dependency:
            extra["kill-on-invalid-dep"] = "yes"
        path = f"export PYTHONPATH={shlex.quote(job.place)}${{PYTHONPATH:+:$PYTHONPATH}}"
        return {
            **{k: v for k, v in given.items() if v},
            "signal_delay_s": site.signal_delay_s,
            "setup": [*site.setup, path],
            "teardown": teardown(site.kill_retries, self.job_dir / job.token),
            "srun_args": [*_cores(site), *site.srun_args],
            "additional_parameters": extra,
        }


@dataclass(frozen=True)
class Place:
    """Where jobs go: their working folder, and the cluster."""

    snapshot: Path
    cluster: Cluster


def _cores(site: Site) -> list[str]:
    """Said to srun too: since SLURM 22.05 it does not take it over from sbatch."""
    return [f"--cpus-per-task={site.cpus_per_task}"] if site.cpus_per_task else []


@contextlib.contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hides from sbatch what an allocation that this process runs in has set for its own steps.

    A job would inherit it, and be bound to cores that it has not got. What a shell says to sbatch
    stays.
    """
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    said = {k: v for k, v in os.environ.items() if k.startswith("SBATCH_") or k in OF_THE_SHELL}
    with clean_env():
        os.environ.update(said)
        yield


def _base(job_id: str) -> str:
    return job_id.partition("_")[0]


def report_job(study: Path, scheduler: Scheduler) -> Job | None:
    """The report job of a study, if one was submitted and can be named."""
    job = job_from((read_json(study / "jobs.json") or {}).get("report") or {})
    if job is not None and not job.id:
        job = replace(job, id=scheduler.orphans({job.token}).get(job.token, ""))
    return job if job is not None and job.id else None


def cancel_report(study: Path, scheduler: Scheduler) -> str:
    """Cancels the report job of a study if it is still queued; its number, or nothing."""
    job = report_job(study, scheduler)
    if job is None or not ((state := scheduler.states([job]).get(job.id)) and state.alive):
        return ""
    scheduler.cancel([job.id])
    return job.id


def teardown(retries: int, ended: Path) -> list[str]:
    """Shell lines behind srun: its exit code is written down, and a run killed goes on, boundedly.

    137 is SIGKILL, 140 a SIGUSR2 that came before the run could hear it.
    """
    return [
        "code=$?",
        f'ended={shlex.quote(str(ended))}"${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}.exit"',
        'echo "$code" >> "$ended"',
        'if [ "$code" -eq 137 ] || [ "$code" -eq 140 ]; then',
        f'  if [ "$(grep -cx -e 137 -e 140 "$ended")" -le {retries} ]; then',
        '    for try in $(seq 30); do scontrol requeue "$SLURM_JOB_ID" && sleep 60; sleep 10; done',
        "  fi",
        "fi",
        'exit "$code"',
    ]


def refusal(error: Exception) -> str:
    """The scheduler's own words in submitit's error, each once."""
    lines = [x.strip() for x in str(error).splitlines() if x.strip()]
    spoken = dict.fromkeys(x for x in lines if x.startswith("sbatch:"))
    return "; ".join(spoken) or (lines[-1] if lines else type(error).__name__)
