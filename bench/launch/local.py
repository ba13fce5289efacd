"""Cells side by side on this machine: one process a run, so that a crash costs that run alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import NODE, BusyError, StopRequestedError, UsageError, killed_by
from bench.launch.base import (
    Observer,
    Order,
    Places,
    Progress,
    block_dependents,
    check_shares,
    failed,
    note,
    refresh,
    stop_dependents,
    survey,
)
from bench.launch.gang import Gang, Seat, seats
from bench.machine import provenance
from bench.machine.cores import usable_cores
from bench.plan.config import Resources
from bench.plan.study import CELL, Task
from bench.rows import Row
from bench.store.states import DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store

PRELOADED = ["bench.launch.preload", "bench.work.runner", "sklearn.datasets", "torch._dynamo"]
"""What takes long to import, imported once before the runs' processes are forked.

Every PyTorch optimizer imports its compiler (``torch._dynamo``) when it is made.
"""

POLL_S = 0.1
ELSEWHERE = BusyError.exit_code
"""Exit code of a child that finds its run computed by another process."""

STOP_S = 120.0
"""Seconds a task has to save its state when asked to stop."""

SERVER_GONE = 255
"""What is told of a child whose fork server died; the child itself may live on."""

TRIES = 2
"""Attempts at a run whose process died without a word (killed, out of memory, crashed)."""


@dataclass
class LocalLauncher:
    """Runs up to ``jobs`` tasks at once, each with its share of cores or GPUs of its own.

    ``processes`` compute one run together, each with its threads or a GPU.
    """

    store: Store
    resources: Resources
    jobs: int = 1
    retry: bool = False
    gpus: Sequence[str] = ()
    processes: int = 1
    _running: dict[str, tuple[Gang, Progress, int]] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)
    _cancels: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _code: dict[str, Any] = field(default_factory=dict)

    def places(self, runs: int) -> Places:
        """A GPU a run where there are some, else its threads."""
        if self.gpus:
            return Places(self.jobs, self.processes, "GPU", processes=self.processes)
        cores = self.resources.threads * self.processes
        return Places(self.jobs, cores, "core", processes=self.processes)

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Computes what is missing; a failed run blocks only what depends on it.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the running tasks have saved their state.
        """
        progresses = survey(self.store, tasks, self.retry)
        block_dependents(self.store, progresses)
        for progress in progresses:
            run_id = progress.task.run_id
            self._seen[run_id] = self._attempts(progress)
            self._cancels[run_id] = self.store.run(run_id).cancellation()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED, *modules(tasks)])
        self._code = provenance.code()
        with _handled(signal.SIGINT, signal.SIG_IGN):  # the server is none of Ctrl-C's business
            multiprocessing.forkserver.ensure_running()
        with _handled(signal.SIGTERM, _interrupt):
            try:
                while any(p.state in (PENDING, RUNNING) for p in progresses):
                    self._start_ready(context, progresses)
                    self._reap(progresses)
                    stop_dependents(progresses)
                    observe(progresses)
                    time.sleep(POLL_S)
            finally:
                self._stop_all()
        observe(progresses)
        return progresses

    def _start_ready(
        self, context: multiprocessing.context.ForkServerContext, progresses: Sequence[Progress]
    ) -> None:
        done = {p.task.run_id for p in progresses if p.state == DONE}
        for progress in sorted(progresses, key=lambda p: p.task.stage != CELL):
            if len(self._running) >= self.jobs:
                return
            task = progress.task
            if progress.state != PENDING or (task.parent and task.parent not in done):
                continue
            folder = self.store.run(task.run_id)
            if folder.is_done():
                progress.state, progress.share = DONE, 1.0
            elif folder.cancellation() != self._cancels[task.run_id]:
                progress.state = STOPPED
            elif self._failed_elsewhere(progress):
                progress.state, progress.status = FAILED, folder.status()
            elif not folder.is_locked():
                self._start(context, progress)

    def _start(
        self, context: multiprocessing.context.ForkServerContext, progress: Progress
    ) -> None:
        slot = min(set(range(self.jobs)) - {s for _, _, s in self._running.values()})
        first, count = slot * self.processes, len(self.gpus)
        mine = [self.gpus[(first + i) % count] for i in range(self.processes if count else 0)]
        shared = (self.store.root, progress.task, self.resources, ",".join(mine), self._code)
        members = [
            context.Process(target=run_child, args=(*shared, seat))
            for seat in seats(self.processes)
        ]
        for process in members:
            process.start()
        progress.state = RUNNING
        self._running[progress.task.run_id] = (Gang(members), progress, slot)

    def _attempts(self, progress: Progress) -> int:
        return int(self.store.run(progress.task.run_id).status().get("attempt", 0))

    def _failed_elsewhere(self, progress: Progress) -> bool:
        """Whether another command on this folder tried the run meanwhile, and it failed."""
        state = self.store.run(progress.task.run_id).status()["state"]
        return state == FAILED and self._attempts(progress) > self._seen[progress.task.run_id]

    def _reap(self, progresses: Sequence[Progress]) -> None:
        for run_id, (process, progress, _) in list(self._running.items()):
            if process.is_alive():
                refresh(self.store, progress)
                continue
            process.join()
            del self._running[run_id]
            self._settle(progress, process.exitcode or 0)
            block_dependents(self.store, progresses)

    def _settle(self, progress: Progress, code: int) -> None:
        """How a run ended, from its folder and its process's exit code."""
        folder = self.store.run(progress.task.run_id)
        progress.status = folder.status()
        if folder.is_done():
            progress.state, progress.share = DONE, 1.0
        elif code == StopRequestedError.exit_code:
            progress.state = STOPPED
        elif code == ELSEWHERE or folder.is_locked() or self._may_retry(folder.run_id, code):
            progress.state = PENDING
        else:
            if code < 0:
                note(folder, FAILED, failure=NODE, message=killed_by(-code))
            progress.state, progress.status = FAILED, failed(folder)

    def _may_retry(self, run_id: str, code: int) -> bool:
        """Whether a run that died without a word is tried again; this counts as a try."""
        if code >= 0 and code != SERVER_GONE:
            return False
        self._tries[run_id] = self._tries.get(run_id, 1) + 1
        self._seen[run_id] = int(self.store.run(run_id).status().get("attempt", 0))
        return self._tries[run_id] <= TRIES

    def _stop_all(self) -> None:
        """Asks the running tasks to save their state and waits; on another Ctrl-C kills them."""
        processes = [process for process, _, _ in self._running.values()]
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(timeout=STOP_S)
        finally:
            for process in processes:
                process.kill()
                process.join()
        for _, progress, _ in self._running.values():
            progress.state = STOPPED
        self._running.clear()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    """A signal's handler for a while; in a thread of a notebook nothing, for it may set none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


def visible_gpus() -> list[str]:
    """Ids of the GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [n.strip() for n in named.split(",") if n.strip() not in ("", "-1")]
    return [str(i) for i in range(len(glob("/dev/nvidia[0-9]*")))]


def modules(tasks: Sequence[Task]) -> list[str]:
    """Modules of the methods, plug-ins, evaluations and data sets of these tasks.

    They too are imported before the first run: whoever edits the code meanwhile changes no run.
    """
    rows: list[Row] = []
    for config in {t.config.arm: t.config for t in tasks}.values():
        rows += [registry.METHODS.row(config.method), registry.dataset(config.data.name)]
        rows += [registry.PLUGINS.row(name) for name, _ in config.plugins]
        rows += [registry.TASKS.row(name) for name, _ in config.tasks]
    return sorted({row.target.partition(":")[0] for row in rows})


def run_child(
    root: Path, task: Task, resources: Resources, gpus: str, code: Mapping[str, Any], seat: Seat
) -> None:
    """Body of a child process: computes one task and exits with a code that says how it went.

    ``code`` is what the launcher found the code to be when it was loaded.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    provenance.told(code)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        resources = replace(resources, device="cuda")
    if seat.size > 1:
        seat.take()
    from bench.work.runner import execute
    from bench.work.worker import compute

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stderr.fileno())
    try:
        if seat.size > 1:
            compute(root, task.run_id, resources)
        else:
            execute(Store(root), task, resources)
    except StopRequestedError as stop:
        sys.exit(stop.exit_code)
    except BusyError:
        sys.exit(ELSEWHERE)
    except Exception:
        sys.exit(1)  # recorded in the run's folder by the runner


def local(order: Order) -> LocalLauncher:
    """The launcher for an order: a run a GPU, or as many as the cores have threads for.

    With ``--ngpus N`` a run takes N processes, each on a GPU or, with ``--device cpu``, on cores.

    Raises:
        UsageError: if there is no room for a run's processes, or a batch cannot be shared.
    """
    resources, asked = order.resources, order.settings.get("gpus_per_node")
    processes = 1 if asked is None else int(asked)
    gpus = visible_gpus() if resources.device in ("auto", "cuda") else []
    cores = usable_cores()
    if asked is not None:
        _check_processes(order, processes, len(gpus), cores)
    if processes > 1 and not gpus:
        share = order.threads or max(1, resources.threads // processes)
        resources = replace(resources, threads=share)
    jobs = order.jobs or len(gpus) // processes or cores // (resources.threads * processes)
    return LocalLauncher(order.store, resources, max(1, jobs), order.retry, gpus, processes)


def _check_processes(order: Order, processes: int, gpus: int, cores: int) -> None:
    """Refuses a number of processes a run that this machine or the study's batches cannot bear."""
    if processes < 1:
        raise UsageError(f"--ngpus {processes}: a run takes one process or more.")
    device = order.resources.device
    if device == "cpu" and processes > cores:
        raise UsageError(f"--ngpus {processes} --device cpu: this machine has {cores} core(s).")
    if device != "cpu" and processes * max(1, order.jobs) > gpus:
        beside = f" --jobs {order.jobs}" if order.jobs else ""
        raise UsageError(
            f"--ngpus {processes}{beside}: this machine shows {gpus} GPU(s) to --device {device}. "
            "Ask for fewer; --device cpu computes a run with as many processes on the cores, "
            "--launcher slurm on a cluster's nodes."
        )
    check_shares(order, processes, "--ngpus")
