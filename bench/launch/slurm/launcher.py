"""Cells on a SLURM cluster, through submitit: job arrays, each cell behind its pre-training.

The scheduler alone keeps the order, so the command that submitted may go away at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.errors import DetachedError, NoSchedulerError, SchedulerError, UsageError
from bench.launch.base import (
    Observer,
    Order,
    Places,
    Progress,
    block_dependents,
    check_shares,
    refresh,
    survey,
)
from bench.launch.slurm import scheduler
from bench.launch.slurm.forecast import forecast
from bench.launch.slurm.scheduler import Job, Scheduler, this_cluster
from bench.launch.slurm.site import load_site
from bench.launch.slurm.submit import Submitted, Submitter
from bench.launch.slurm.timing import timed
from bench.launch.slurm.tracking import Tracker, known_jobs, live_jobs
from bench.plan.config import RunConfig
from bench.plan.study import Task
from bench.store.states import PENDING, RUNNING
from bench.work.estimate import Speed

RAREST_LOOK_S = 600.0
"""Seconds between looks at most, while the scheduler does not answer."""

COME_BACK = "the jobs go on, and the same command comes back to them"


@dataclass
class SlurmLauncher(Submitter):
    """Submits what is missing and follows it."""

    retry: bool = False
    detach: bool = False
    say: Callable[[str], None] = lambda text: None
    _held: tuple[Task, ...] = ()
    _room: int = 0

    def places(self, runs: int) -> Places:
        """As many runs as the site lets into the queue at once."""
        gpus = self.site.nodes * self.site.gpus_per_node
        jobs = min(max(1, runs), self.site.array_parallelism)
        units, unit = gpus or self.resources.threads, "GPU" if gpus else "core"
        memory = 0.0 if gpus else self.site.mem_gb / self.site.tasks  # a GPU's is not known
        processes = self.site.nodes * self.site.tasks
        return Places(jobs, units, unit, here=False, memory_gb=memory, processes=processes)

    def describe(self, tasks: Sequence[Task]) -> list[str]:
        """The jobs that these tasks would become, in lines for a dry run."""
        return forecast(self, tasks)

    def calibrate(self, configs: Sequence[RunConfig]) -> list[Speed | None]:
        """Speeds on a compute node, measured by a small job; None where it did not come so far."""
        scheduler.check_tools()
        return timed(self, configs, self.say)

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Submits the missing runs and watches until all have ended.

        Raises:
            SchedulerError: if the scheduler refuses; nothing of this launch stays queued.
            DetachedError: on Ctrl-C or ``detach``, and where SLURM's commands are gone; the jobs
                go on.
        """
        scheduler.check_tools()
        progresses = survey(self.store, tasks, self.retry)
        block_dependents(self.store, progresses)
        waiting = [p.task for p in progresses if p.state == PENDING]
        tracker = Tracker(self.store, Scheduler.found(), {}, {t.run_id: t.parent for t in waiting})
        if waiting:
            with self._submitting():
                names = [t.run_id for t in waiting]
                tracker.jobs = live_jobs(self.store, names, tracker.scheduler)
                self._tell_strangers(names, tracker)
                fresh = [t for t in waiting if t.run_id not in tracker.jobs]
                earlier = len(tracker.jobs)
                if fresh:
                    around = self.others(waiting, tracker.scheduler)
                    self._take(tracker, self.submit(fresh, {**around, **tracker.jobs}))
            self._announce(earlier, tracker.jobs)
        self._follow(progresses, tracker, observe)
        return progresses

    @contextlib.contextmanager
    def _submitting(self) -> Iterator[None]:
        """Of two commands on one folder the second submits only what the first did not."""
        with (self.store.root / ".submit.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _tell_strangers(self, names: Sequence[str], tracker: Tracker) -> None:
        """Says that noted jobs are not to be found here, because this is another cluster."""
        gone = {r: j for r, j in known_jobs(self.store, names).items() if r not in tracker.jobs}
        if not gone:
            return
        here = this_cluster().name
        before = {job.cluster for job in gone.values()} - {here}
        if before:
            self.say(
                f"{len(gone)} runs were submitted to the cluster {', '.join(sorted(before))}, and "
                f"this is {here}: they are submitted here. Cancel them there, if they still wait."
            )
        elif any(job.id in tracker.scheduler.strange for job in gone.values()):
            self.say(
                "numbers of jobs noted here belong to other jobs now (was the cluster set up "
                "anew?): those are left alone, and the runs are submitted again."
            )

    # --- following ------------------------------------------------------------------------

    def _take(self, tracker: Tracker, done: Submitted) -> None:
        """Goes on with what a submission came to; tells of a limit once."""
        tracker.jobs |= done.jobs
        if done.held and not self._held:
            self.say(
                f"{len(done.held)} runs wait for room in the queue, and are submitted as others "
                f"end: {done.limit}"
            )
        self._held, self._room = done.held, len(tracker.open_runs())

    def _announce(self, earlier: int, jobs: Mapping[str, Job]) -> None:
        bases = sorted({j.id.partition("_")[0] for j in jobs.values()}, key=int)
        out = shlex.quote(str(self.store.root))
        self.say(
            f"{len(jobs) - earlier} runs submitted, {earlier} already with the scheduler: "
            f"jobs {', '.join(bases)}\n"
            f"follow:  python -m bench.run status --out {out}   (or: squeue -j {','.join(bases)})\n"
            f"logs:    {self.job_dir}   cancel: python -m bench.run cancel --out {out}\n"
            "Ctrl-C detaches; the same command comes back."
        )

    def _follow(self, progresses: Sequence[Progress], tracker: Tracker, observe: Observer) -> None:
        count = len(tracker.jobs)
        message = f"detached from {count} runs; the same command comes back to them"
        if self._held:
            message += f" and submits {len(self._held)} more"
        away = Away(self.say, self.site.poll_s)
        if self.detach and (count or self._held):
            raise DetachedError(message, exit_code=0)
        try:
            while True:
                self._look(progresses, tracker, away)
                observe(progresses)
                if tracker.finished and not self._held:
                    return
                time.sleep(away.wait_s)
        except KeyboardInterrupt as stop:
            raise DetachedError(message) from stop
        except NoSchedulerError as error:
            raise DetachedError(f"{error} Detached: {COME_BACK}.") from error

    def _look(self, progresses: Sequence[Progress], tracker: Tracker, away: Away) -> None:
        """One look; while the scheduler is away the runs' own files tell what they can."""
        try:
            states = tracker.look()
            away.answered()
        except NoSchedulerError:
            raise
        except SchedulerError as error:
            away.failed(error)
            states = tracker.look_at_files()
        for text in tracker.news:
            self.say(text)
        tracker.news.clear()
        self._show(progresses, states)
        if self._held and not away.since and len(tracker.open_runs()) < max(1, self._room):
            self._submit_held(progresses, tracker)

    def _submit_held(self, progresses: Sequence[Progress], tracker: Tracker) -> None:
        """Submits what there is room for now, less what hangs on runs that failed meanwhile."""
        block_dependents(self.store, progresses)
        states = {p.task.run_id: p.state for p in progresses}
        left = [t for t in self._held if states[t.run_id] == PENDING]
        alive = {r: tracker.jobs[r] for r in tracker.open_runs()}
        self._held = tuple(left)
        if left:
            with self._submitting():
                around = self.others([p.task for p in progresses], tracker.scheduler)
                self._take(tracker, self.submit(left, {**around, **alive}))

    def _show(self, progresses: Sequence[Progress], states: Mapping[str, str]) -> None:
        for progress in progresses:
            run_id = progress.task.run_id
            if run_id not in states:
                continue
            progress.state = states[run_id]
            if progress.state == RUNNING:
                refresh(self.store, progress)
            else:
                progress.status = self.store.run(run_id).status()


@dataclass
class Away:
    """A scheduler that does not answer: told once, looked at less often, told when it is back."""

    say: Callable[[str], None]
    poll_s: float
    since: float = 0.0
    wait_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.wait_s = self.poll_s

    def failed(self, error: SchedulerError) -> None:
        """Notes a look without an answer."""
        if not self.since:
            self.since = time.monotonic()
            self.say(f"warning: {error}. {COME_BACK[0].upper()}{COME_BACK[1:]}; looking on.")
        self.wait_s = min(max(RAREST_LOOK_S, self.poll_s), self.wait_s * 2)

    def answered(self) -> None:
        """Notes an answer."""
        if self.since:
            took = time.monotonic() - self.since
            self.say(f"the scheduler answers again, after {took:.0f} s")
        self.since, self.wait_s = 0.0, self.poll_s


def slurm(order: Order) -> SlurmLauncher:
    """The launcher for an order, with threads and data workers of a compute node.

    Raises:
        UsageError: if a batch cannot be shared by the processes asked for, or a path read.
    """
    site, resources = load_site(order.site, order.settings), order.resources
    processes = site.nodes * site.tasks
    check_shares(order, processes, "--nodes or --ngpus")
    for flag, place in (("--out", str(order.store.root)), ("--job-dir", site.job_dir)):
        if "%" in place:
            raise UsageError(
                f"{flag} '{place}': SLURM reads '%' in the paths of its logs as a code."
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
