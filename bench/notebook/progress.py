"""Progress of a study in a notebook: one line that is drawn anew; elsewhere that of the command."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from bench.commands.progress import StudyView, weights
from bench.launch.base import Observer, Progress
from bench.store.states import BLOCKED, DONE, FAILED, RUNNING
from bench.work.estimate import format_seconds

AGAIN_S = 0.5
"""Seconds between two drawings."""


@contextlib.contextmanager
def view() -> Iterator[Observer]:
    """An observer that suits where it is watched: a notebook, a terminal or a log."""
    if (display := _display()) is not None:
        yield NotebookView(display)
        return
    with StudyView() as watch:
        yield watch


def _display() -> Any:
    """IPython's display where a notebook's kernel runs this, else None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display


class NotebookView:
    """Draws bar, runs, ETA and failures of a study into the cell that started it."""

    def __init__(self, display: Any) -> None:
        self.display = display
        self.handle: Any = None
        self.started = time.monotonic()
        self.drawn = -AGAIN_S
        self.begun: float | None = None

    def __call__(self, runs: Sequence[Progress]) -> None:
        """Shows the present state of all runs."""
        ended = not any(r.state == RUNNING for r in runs)
        now = time.monotonic() - self.started
        if now - self.drawn < AGAIN_S and not ended:
            return
        self.drawn = now
        said = {"text/html": self._html(runs, now), "text/plain": self._text(runs, now)}
        if self.handle is None:
            self.handle = self.display(said, raw=True, display_id=True)
        else:
            self.handle.update(said, raw=True)

    def _html(self, runs: Sequence[Progress], now: float) -> str:
        share = _share(runs)
        failed = [r for r in runs if r.state in (FAILED, BLOCKED)]
        lines = [f"{r.task.run_id}: {r.state} {r.status.get('message', '')}" for r in failed]
        bar = f'<progress max="1" value="{share:.4f}"></progress>'
        return f"{bar} {escape(self._text(runs, now))}" + "".join(
            f"<br>{escape(line)}" for line in lines
        )

    def _text(self, runs: Sequence[Progress], now: float) -> str:
        share = _share(runs)
        self.begun = share if self.begun is None else self.begun
        done = sum(r.state == DONE for r in runs)
        text = f"{share:.0%}, {done}/{len(runs)} runs, {format_seconds(now)}"
        if self.begun < share < 1:
            text += f", ETA {format_seconds((1 - share) * now / (share - self.begun))}"
        return text


def _share(runs: Sequence[Progress]) -> float:
    total, done = weights(runs)
    return done / total if total else 1.0
