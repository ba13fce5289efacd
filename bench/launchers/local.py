"""Cells side by side on this machine: one process a run, so that a crash costs that run alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.config import Resources
from bench.errors import StopRequestedError, StoreError
from bench.launchers.base import Observer, Progress, block_dependents, refresh, survey
from bench.plan import CELL, Task
from bench.store import DONE, FAILED, PENDING, RUNNING, STOPPED, Store

POLL_S = 0.1
ELSEWHERE = 75
"""Exit code of a child that finds its run computed by another process."""

TRIES = 2
"""Attempts at a run whose process died without a word (killed, out of memory, crashed)."""


@dataclass
class LocalLauncher:
    """Runs up to ``jobs`` tasks at once, each with its share of cores or its own GPU."""

    store: Store
    resources: Resources
    jobs: int = 1
    retry: bool = False
    gpus: int = 0
    _running: dict[str, tuple[BaseProcess, Progress, int]] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Computes what is missing; a failed run blocks only what depends on it.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the running tasks have saved their state.
        """
        progresses = survey(self.store, tasks, self.retry)
        block_dependents(self.store, progresses)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.runner"])
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while any(p.state in (PENDING, RUNNING) for p in progresses):
                self._start_ready(context, progresses)
                self._reap(progresses)
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
            elif not folder.is_locked():
                slot = min(set(range(self.jobs)) - {s for _, _, s in self._running.values()})
                gpu = slot if self.gpus else -1
                arguments = (self.store.root, task, self.resources, gpu)
                process = context.Process(target=run_child, args=arguments)
                process.start()
                progress.state = RUNNING
                self._running[task.run_id] = (process, progress, slot)

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
        elif code in (ELSEWHERE, StopRequestedError.exit_code):
            progress.state = PENDING if code == ELSEWHERE else STOPPED
        elif code < 0 and self._may_retry(progress.task.run_id):
            progress.state = PENDING
        else:
            if code < 0:
                name = signal.Signals(-code).name
                hint = " (often: out of memory)" if -code == signal.SIGKILL else ""
                folder.set_status(FAILED, failure="node", message=f"killed by {name}{hint}")
            progress.state, progress.status = FAILED, folder.status()

    def _may_retry(self, run_id: str) -> bool:
        self._tries[run_id] = self._tries.get(run_id, 1) + 1
        return self._tries[run_id] <= TRIES

    def _stop_all(self) -> None:
        """Asks the running tasks to save their state and waits for them."""
        for process, _, _ in self._running.values():
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGTERM)
        for process, progress, _ in self._running.values():
            process.join(timeout=60)
            progress.state = STOPPED
        self._running.clear()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run_child(root: Path, task: Task, resources: Resources, gpu: int) -> None:
    """Body of a child process: computes one task and exits with a code that says how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu >= 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        resources = replace(resources, device="cuda")
    from bench.runner import execute

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stderr.fileno())
    try:
        execute(Store(root), task, resources)
    except StopRequestedError as stop:
        sys.exit(stop.exit_code)
    except StoreError:
        sys.exit(ELSEWHERE)
    except Exception:
        sys.exit(1)  # recorded in the run's folder by the runner
