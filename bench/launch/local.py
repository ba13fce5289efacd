"""Cells side by side on this machine: one process a run, so that a crash costs that run alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.errors import NODE, BusyError, StopRequestedError, killed_by
from bench.launch.base import (
    Observer,
    Order,
    Places,
    Progress,
    block_dependents,
    failed,
    note,
    refresh,
    stop_dependents,
    survey,
)
from bench.plan.config import Resources
from bench.plan.study import CELL, Task
from bench.store.states import DONE, FAILED, PENDING, RUNNING, STOPPED
from bench.store.store import Store

PRELOADED = ["bench.work.runner", "sklearn.datasets", "torch._dynamo"]
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
    """Runs up to ``jobs`` tasks at once, each with its share of cores or its own GPU."""

    store: Store
    resources: Resources
    jobs: int = 1
    retry: bool = False
    gpus: Sequence[str] = ()
    _running: dict[str, tuple[BaseProcess, Progress, int]] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)
    _cancels: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def places(self, runs: int) -> Places:
        """A GPU a run where there are some, else its threads."""
        if self.gpus:
            return Places(self.jobs, 1, "GPU")
        return Places(self.jobs, self.resources.threads, "core")

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
        context.set_forkserver_preload(PRELOADED)
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while any(p.state in (PENDING, RUNNING) for p in progresses):
                self._start_ready(context, progresses)
                self._reap(progresses)
                stop_dependents(progresses)
                observe(progresses)
                time.sleep(POLL_S)
        finally:
            self._stop_all()
            signal.signal(signal.SIGTERM, previous)
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
        gpu = self.gpus[slot % len(self.gpus)] if self.gpus else ""
        arguments = (self.store.root, progress.task, self.resources, gpu)
        process = context.Process(target=run_child, args=arguments)
        process.start()
        progress.state = RUNNING
        self._running[progress.task.run_id] = (process, progress, slot)

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


def visible_gpus() -> list[str]:
    """Ids of the GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [n.strip() for n in named.split(",") if n.strip() not in ("", "-1")]
    return [str(i) for i in range(len(glob("/dev/nvidia[0-9]*")))]


def run_child(root: Path, task: Task, resources: Resources, gpu: str) -> None:
    """Body of a child process: computes one task and exits with a code that says how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        resources = replace(resources, device="cuda")
    from bench.work.runner import execute

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stderr.fileno())
    try:
        execute(Store(root), task, resources)
    except StopRequestedError as stop:
        sys.exit(stop.exit_code)
    except BusyError:
        sys.exit(ELSEWHERE)
    except Exception:
        sys.exit(1)  # recorded in the run's folder by the runner


def local(order: Order) -> LocalLauncher:
    """The launcher for an order: a run a GPU, or as many as the cores have threads for."""
    resources = order.resources
    gpus = visible_gpus() if resources.device in ("auto", "cuda") else []
    cores = len(os.sched_getaffinity(0))
    jobs = order.jobs or len(gpus) or max(1, cores // resources.threads)
    return LocalLauncher(order.store, resources, jobs, order.retry, gpus)
