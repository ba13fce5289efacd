"""How a running study looks: progress bars with ETA on a terminal, a line a change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from bench.launch.base import Progress as RunProgress
from bench.plan.study import PRETRAIN
from bench.store.record import WAIT_LIMIT
from bench.store.states import BLOCKED, DONE, FAILED, RUNNING, STOPPED
from bench.work.estimate import format_seconds


class _Eta(ProgressColumn):
    """Remaining time of the study at its average speed so far; empty for single runs."""

    def render(self, task: Task) -> Text:
        """The text of one row."""
        if not task.fields.get("whole"):
            return Text("")
        gained = task.completed - task.fields["begun"]
        if not gained or task.elapsed is None or task.total is None:
            return Text("ETA --:--")
        left = (task.total - task.completed) * task.elapsed / gained
        return Text(f"ETA {format_seconds(left)}", style="cyan")


GAP_S, SILENCE_S = 10.0, 60.0
"""Without a terminal: seconds between two lines at least, and at most."""


class StudyView:
    """Observer of a launcher; writes to stderr so that stdout holds the table alone."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars: dict[str, TaskID] = {}
        self.states: dict[str, str] = {}
        self.started = time.monotonic()
        self.told = self.started
        self.news: RunProgress | None = None
        self.begun: float | None = None
        self.rich = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            _Eta(),
            console=self.console,
            transient=True,
        )
        self.whole: TaskID | None = None

    def __enter__(self) -> StudyView:
        if self.console.is_terminal:
            self.rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rich.stop()

    def __call__(self, runs: Sequence[RunProgress]) -> None:
        """Shows the present state of all runs."""
        for run in runs:
            if self.states.get(run.task.run_id) != run.state:
                self._changed(run, runs)
                self.states[run.task.run_id] = run.state
        if self.console.is_terminal:
            self._draw(runs)
        else:
            self._tell(runs)

    def _changed(self, run: RunProgress, runs: Sequence[RunProgress]) -> None:
        known = run.task.run_id in self.states
        if run.state in (FAILED, BLOCKED):
            reason = run.status.get("message", "")
            kind = run.status.get("failure", "")
            line = f"{run.state:8} {run.task.run_id}  {kind} {reason}"
            self.console.print(Text(line, style="red"))
        elif run.state == DONE and known:
            self.news = run
        self._warn_of_waiting(run)

    def _tell(self, runs: Sequence[RunProgress]) -> None:
        """Without a terminal: a line when runs have finished, or when a minute has passed."""
        now = time.monotonic()
        total, gained = weights(runs)
        self.begun = gained if self.begun is None else self.begun
        silent = now - self.told
        ended = all(r.state in (DONE, FAILED, BLOCKED, STOPPED) for r in runs)
        due = self.news is not None and (silent >= GAP_S or ended)
        if not due and silent < SILENCE_S:
            return
        done = sum(r.state == DONE for r in runs)
        line = f"[{format_seconds(now - self.started)}] {done}/{len(runs)} runs done"
        if gained > self.begun and not ended:
            left = (total - gained) * (now - self.started) / (gained - self.begun)
            line += f", ETA {format_seconds(left)}"
        if self.news is not None:
            line += f", last {self.news.task.run_id}  {speed(self.news)}"
        print(line.rstrip(), file=sys.stderr, flush=True)
        self.told, self.news = now, None

    def _warn_of_waiting(self, run: RunProgress) -> None:
        waited = run.status.get("data_wait_share") or 0.0
        if run.state == DONE and run.task.stage == PRETRAIN and waited > WAIT_LIMIT:
            self.console.print(
                f"warning: {run.task.run_id} spent {waited:.0%} of its time waiting for data; "
                "more --workers may help",
                style="yellow",
            )

    def _draw(self, runs: Sequence[RunProgress]) -> None:
        total, gained = weights(runs)
        finished = sum(r.state == DONE for r in runs)
        note = f"{finished}/{len(runs)} runs"
        if self.whole is None:
            self.whole = self.rich.add_task(
                "study", total=total, note=note, whole=True, begun=gained
            )
        self.rich.update(self.whole, completed=gained, note=note)
        running = {r.task.run_id: r for r in runs if r.state == RUNNING}
        for run_id in set(self.bars) - set(running):
            self.rich.remove_task(self.bars.pop(run_id))
        for run_id, run in running.items():
            if run_id not in self.bars:
                name = run_id.rsplit("-", 1)[0]
                self.bars[run_id] = self.rich.add_task(name, total=1.0, note="", whole=False)
            self.rich.update(self.bars[run_id], completed=run.share, note=_note(run))


def weights(runs: Sequence[RunProgress]) -> tuple[float, float]:
    """Work of all runs, and how much of it is done."""
    done = sum(r.weight * (1.0 if r.state == DONE else r.share) for r in runs)
    return sum(r.weight for r in runs), done


def _note(run: RunProgress) -> str:
    return f"{run.status.get('stage', '')} {speed(run)}".rstrip()


def speed(run: RunProgress) -> str:
    """Images/s and the share of the time spent waiting for data, of a pre-training."""
    rate, waited = run.status.get("images_per_s"), run.status.get("data_wait_share")
    if run.task.stage != PRETRAIN or not rate or waited is None:
        return ""
    return f"{rate:,.0f} img/s, waiting for data {waited:.1%}"
