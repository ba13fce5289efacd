"""Runs in this very process, one after the other: for debuggers, profilers and tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import BusyError, StopRequestedError
from bench.launch.base import Observer, Order, Places, Progress, block_dependents, failed, survey
from bench.plan.config import Resources
from bench.plan.study import Task
from bench.store.states import DONE, FAILED, PENDING
from bench.store.store import Store

WAIT_S = 0.2
"""Seconds between looks at a run that another command computes."""


@dataclass
class InlineLauncher:
    """Computes tasks in order in the calling process."""

    store: Store
    resources: Resources
    retry: bool = False

    def places(self, runs: int) -> Places:
        """One run after the other."""
        return Places(1, self.resources.threads, "core")

    def launch(self, tasks: Sequence[Task], observe: Observer) -> list[Progress]:
        """Computes what is missing; a failed run blocks only what depends on it.

        Raises:
            StopRequestedError: after a signal, once the running task has saved its state.
        """
        progresses = survey(self.store, tasks, self.retry)
        for progress in progresses:
            block_dependents(self.store, progresses)
            if progress.state == PENDING:
                try:
                    self._execute(progress.task)
                    progress.state, progress.share = DONE, 1.0
                    progress.status = self.store.run(progress.task.run_id).status()
                except StopRequestedError:
                    raise
                except Exception:
                    progress.state = FAILED
                    progress.status = failed(self.store.run(progress.task.run_id))
            observe(progresses)
        return progresses

    def _execute(self, task: Task) -> None:
        """Computes a run once nobody else does."""
        from bench.work.runner import execute

        while True:
            with contextlib.suppress(BusyError):  # another command was faster
                while self.store.run(task.run_id).is_locked():
                    time.sleep(WAIT_S)
                execute(self.store, task, self.resources)
                return
            time.sleep(WAIT_S)


def inline(order: Order) -> InlineLauncher:
    """The launcher for an order; ``jobs`` is of no meaning to it."""
    return InlineLauncher(order.store, order.resources, order.retry)
