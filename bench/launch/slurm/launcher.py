"""Cells on a SLURM cluster, through submitit: job arrays, each cell behind its pre-training.

The scheduler alone keeps the order, so the command that submitted may go away at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import DetachedError, SchedulerError, UsageError
from bench.launch.base import (
    Observer,
    Order,
    Places,
    Progress,
    block_dependents,
    refresh,
    survey,
)
from bench.launch.slurm import scheduler
from bench.launch.slurm.job import ReportJob, SlurmRun
from bench.launch.slurm.scheduler import Scheduler
from bench.launch.slurm.site import Site, load_site
from bench.launch.slurm.submission import Array, arrays
from bench.launch.slurm.tracking import Tracker, live_jobs, note_job
from bench.launch.snapshot import take_snapshot
from bench.plan.config import Resources
from bench.plan.study import PRETRAIN, Task
from bench.store.files import read_json, write_json
from bench.store.states import PENDING, RUNNING
from bench.store.store import Store


@dataclass
class SlurmLauncher:
    """Submits what is missing and follows it; ``study`` is the study's folder."""

    store: Store
    resources: Resources
    site: Site
    study: Path
    retry: bool = False
    detach: bool = False
    say: Callable[[str], None] = lambda text: None

    def places(self, runs: int) -> Places:
        """As many runs as the site lets into the queue at once."""
        gpus = self.site.nodes * self.site.gpus_per_node
        jobs = min(max(1, runs), self.site.array_parallelism)
        units, unit = gpus or self.resources.threads, "GPU" if gpus else "core"
        return Places(jobs, units, unit, here=False, memory_gb=self.site.mem_gb)

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Submits the missing runs and watches until all have ended.

        Raises:
            SchedulerError: if the scheduler refuses; nothing of this launch stays queued.
            DetachedError: on Ctrl-C or ``detach``; the jobs go on.
        """
        scheduler.check_tools()
        progresses = survey(self.store, tasks, self.retry)
        block_dependents(self.store, progresses)
        waiting = [p.task for p in progresses if p.state == PENDING]
        tracker = Tracker(self.store, Scheduler.found(), {}, {t.run_id: t.parent for t in waiting})
        with self._submitting():
            tracker.jobs = live_jobs(self.store, [t.run_id for t in waiting], tracker.scheduler)
            fresh = [t for t in waiting if t.run_id not in tracker.jobs]
            if fresh:
                tracker.jobs |= self._submit(fresh, dict(tracker.jobs))
        self._announce(len(fresh), tracker.jobs)
        self._follow(progresses, tracker, observe)
        return progresses

    @contextlib.contextmanager
    def _submitting(self) -> Iterator[None]:
        """Of two commands on one folder the second submits only what the first did not."""
        with (self.store.root / ".submit.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- submission -----------------------------------------------------------------------

    @property
    def job_dir(self) -> Path:
        """Folder of scripts, pickles and logs of the jobs."""
        return Path(self.site.job_dir or self.store.root / "jobs").absolute()

    def _submit(self, tasks: Sequence[Task], live: dict[str, str]) -> dict[str, str]:
        snapshot = take_snapshot(self.store.root.absolute() / "code")
        jobs: dict[str, str] = {}
        accepted: list[list[str]] = []
        try:
            for array in arrays(tasks, live, scheduler.max_array_size()):
                for task in array.tasks:
                    self.store.register(task)
                accepted.append(self._submit_array(array, accepted, snapshot))
                jobs |= dict(zip((t.run_id for t in array.tasks), accepted[-1], strict=True))
            report = self._submit_report(list(jobs.values()) + list(live.values()), snapshot)
        except BaseException:
            with contextlib.suppress(SchedulerError):
                Scheduler(False).cancel(job for ids in accepted for job in ids)
            raise
        for run_id, job in jobs.items():
            if self.store.run(run_id).status()["state"] != PENDING:
                self.store.run(run_id).set_status(PENDING, failure="", message="")
            note_job(self.store, run_id, job)
        self._note_study(jobs, report)
        return jobs

    def _submit_array(
        self, array: Array, accepted: Sequence[Sequence[str]], snapshot: Path
    ) -> list[str]:
        dependency = f"afterok:{array.waits}" if array.waits else ""
        if array.follows >= 0:
            parents = accepted[array.follows]
            one_by_one = f"aftercorr:{parents[0].partition('_')[0]}"
            dependency = one_by_one if len(array.tasks) > 1 else f"afterok:{parents[0]}"
        bodies = [
            SlurmRun(self.store.root.absolute(), t.run_id, self.resources, self.site.max_requeues)
            for t in array.tasks
        ]
        parameters = self._parameters(array.tasks[0].stage, dependency, snapshot)
        return self._sbatch(bodies, parameters)

    def _submit_report(self, jobs: Sequence[str], snapshot: Path) -> str:
        bases = sorted({j.partition("_")[0] for j in jobs}, key=int)
        body = ReportJob(self.store.root.absolute(), self.study.name)
        parameters = self._parameters("report", "afterany:" + ":".join(bases), snapshot)
        small: dict[str, Any] = {"nodes": 1, "ntasks_per_node": 1, "time": 60}
        small["signal_delay_s"] = min(60, self.site.signal_delay_s)
        parameters.pop("gpus_per_node", None)
        return self._sbatch([body], {**parameters, **small})[0]

    def submit_one(self, body: Any, stage: str, snapshot: Path) -> str:
        """Submits a job of its own that runs ``body``; its id."""
        return self._sbatch([body], self._parameters(stage, "", snapshot))[0]

    def _sbatch(self, bodies: Sequence[Any], parameters: dict[str, Any]) -> list[str]:
        """Submits one array (or a single job) and returns its ids."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        python = self.site.python or shlex.quote(sys.executable)
        executor = submitit.SlurmExecutor(folder=self.job_dir, python=python)
        executor.update_parameters(**parameters)
        try:
            with executor.batch():
                jobs = [executor.submit(body) for body in bodies]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise SchedulerError(
                f"sbatch refused the job: {_refusal(error)}. Check --partition, --account, --qos "
                "and --timeout against 'sinfo'; nothing of this launch was left in the queue."
            ) from error
        return [job.job_id for job in jobs]

    def _parameters(self, stage: str, dependency: str, snapshot: Path) -> dict[str, Any]:
        site = self.site
        cell_min = site.cell_timeout_min or site.timeout_min
        given = {
            "job_name": f"bench-{stage}",
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
            "comment": site.comment,
            "dependency": dependency,
        }
        extra: dict[str, Any] = {"requeue": True, "chdir": str(snapshot)}
        if dependency and not dependency.startswith("afterany"):
            extra["kill-on-invalid-dep"] = "yes"
        path = f"export PYTHONPATH={shlex.quote(str(snapshot))}${{PYTHONPATH:+:$PYTHONPATH}}"
        return {
            **{k: v for k, v in given.items() if v},
            "array_parallelism": site.array_parallelism,
            "signal_delay_s": site.signal_delay_s,
            "setup": [*site.setup, path],
            "teardown": _teardown(site.kill_retries),
            "srun_args": list(site.srun_args),
            "additional_parameters": extra,
        }

    def _note_study(self, jobs: dict[str, str], report: str) -> None:
        path = self.study / "jobs.json"
        earlier = (read_json(path) or {}).get("jobs", {})
        values = {"jobs": {**earlier, **jobs}, "report": report, "job_dir": str(self.job_dir)}
        write_json(path, values)

    # --- following ------------------------------------------------------------------------

    def _announce(self, submitted: int, jobs: dict[str, str]) -> None:
        bases = sorted({j.partition("_")[0] for j in jobs.values()}, key=int)
        out = shlex.quote(str(self.store.root))
        self.say(
            f"{submitted} runs submitted, {len(jobs) - submitted} already with the scheduler: "
            f"jobs {', '.join(bases)}\n"
            f"follow:  python -m bench.run status --out {out}   (or: squeue -j {','.join(bases)})\n"
            f"logs:    {self.job_dir}   cancel: python -m bench.run cancel --out {out}\n"
            "Ctrl-C detaches; the same command comes back."
        )

    def _follow(self, progresses: Sequence[Progress], tracker: Tracker, observe: Observer) -> None:
        count = len(tracker.jobs)
        message = f"detached from {count} runs; the same command comes back to them"
        if self.detach:
            raise DetachedError(message, exit_code=0)
        try:
            while True:
                self._update(progresses, tracker)
                observe(progresses)
                if tracker.finished:
                    return
                time.sleep(self.site.poll_s)
        except KeyboardInterrupt as stop:
            raise DetachedError(message) from stop

    def _update(self, progresses: Sequence[Progress], tracker: Tracker) -> None:
        states = tracker.look()
        for progress in progresses:
            run_id = progress.task.run_id
            if run_id not in states:
                continue
            progress.state = states[run_id]
            if progress.state == RUNNING:
                refresh(self.store, progress)
            else:
                progress.status = self.store.run(run_id).status()


def _teardown(retries: int) -> list[str]:
    """Shell lines behind srun: a run killed by SIGKILL goes on from its last state, boundedly."""
    return [
        "code=$?",
        f'if [ "$code" -eq 137 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {retries} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID" && sleep 60',
        "fi",
        'exit "$code"',
    ]


def _refusal(error: Exception) -> str:
    """The scheduler's own words in submitit's error."""
    lines = [x.strip() for x in str(error).splitlines() if x.strip()]
    spoken = [x for x in lines if x.startswith("sbatch:")]
    return "; ".join(spoken) or (lines[-1] if lines else type(error).__name__)


def slurm(order: Order) -> SlurmLauncher:
    """The launcher for an order, with threads and data workers of a compute node.

    Raises:
        UsageError: if a batch cannot be shared by the processes asked for, or a path read.
    """
    site, resources = load_site(order.site, order.settings), order.resources
    processes = site.nodes * site.tasks
    if order.smallest_batch < 2 * processes:
        raise UsageError(
            f"{processes} processes cannot share a batch of {order.smallest_batch} images: fewer "
            "--nodes or --ngpus, or a larger pretrain.batch_size."
        )
    order.share(processes)
    if "%" in str(order.store.root):
        raise UsageError(
            f"--out '{order.store.root}': SLURM reads '%' in the paths of its logs as a code."
        )
    workers = max(1, site.cpus_per_task - 1) if resources.workers else 0
    resources = replace(
        resources,
        nodes=site.nodes,
        gpus_per_node=site.gpus_per_node,
        threads=order.threads or site.cpus_per_task or 1,
        workers=resources.workers if order.workers is not None else workers,
    )
    return SlurmLauncher(
        store=order.store,
        resources=resources,
        site=site,
        study=order.study,
        retry=order.retry,
        detach=order.detach,
        say=order.say,
    )
