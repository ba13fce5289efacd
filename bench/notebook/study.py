"""A study in a notebook or script, by the names of the command line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench import library
from bench.commands import parser
from bench.commands.flags import means_of, wish_of
from bench.commands.recipe import recipe_lines
from bench.commands.study import explain
from bench.errors import NothingMeasuredError
from bench.launch.base import missing
from bench.library import Request
from bench.notebook.progress import view
from bench.notebook.results import Results
from bench.report import html

Given = str | int | float | Path | Iterable[str | int] | None
"""What a flag of the command line may be given as."""


class Study(Results):
    """Methods x epochs x seeds: planned, computed where something is missing, and read.

    Every flag of ``python -m bench.run`` is a keyword: ``preset="smoke"``, ``jobs=2``,
    ``tasks=["finetune", "knn"]``, ``launcher="slurm", ngpus=8``. The study, its ids and its files
    are those of the same command.
    """

    def __init__(
        self,
        methods: Given = None,
        epochs: Given = None,
        seeds: Given = None,
        data: Given = None,
        *,
        out: str | Path = "results",
        settings: Mapping[str, Any] | Iterable[str] = (),
        **flags: Any,
    ) -> None:
        """Reads the words; models and images are looked at by :meth:`plan` and :meth:`run`.

        Args:
            methods: arms, as ``["mae", "mae+null"]``.
            epochs: budgets, as ``[100, 200]``.
            seeds: a count, or a list of seeds.
            data: a data set, with its folder where it needs one: ``"cifar10:DIR"``.
            out: the results folder.
            settings: as ``{"pretrain.blr": 1e-3}`` or ``["pretrain.blr=1e-3"]``.
            flags: any other flag of the command line.

        Raises:
            UsageError: for a keyword or word that is unknown.
        """
        named = {"methods": methods, "epochs": epochs, "seeds": _seeds(seeds), "data": data}
        self.arguments = parser.spelled({**named, "out": out, **flags}, settings)
        _, args = parser.parse(self.arguments)
        self._wish, self._means, self._out = wish_of(args), means_of(args), args.out
        self._request = library.outline(self._wish, self._out, self._means)
        super().__init__(self._request.store, self._request.folder)

    def plan(self) -> pd.DataFrame:
        """Every run with its id and state, checked as far as it can be before it is computed.

        What a reader should know beforehand stands in the frame's ``attrs["warnings"]``.

        Raises:
            UsageError: naming what is wrong.
        """
        request = self._checked()
        frame = _states(request)
        frame.attrs["warnings"] = [*request.planned.warnings, *request.planned.idle]
        return frame

    def run(self) -> Study:
        """Computes what is missing, shown as it goes; the study itself, with its results.

        Raises:
            UsageError: if it cannot be computed so.
            DetachedError: if its runs were left to a scheduler.
        """
        request = self._checked()
        for note in library.freeze(request, self.arguments):
            _say(f"warning: {note}")
        for line in recipe_lines(request, missing(request.survey())):
            _say(line)
        with view() as watch, _script_hidden():
            ended = library.compute_tasks(request, request.study.tasks(), watch, _say)
        explain(ended, self._out)
        return self

    def _checked(self) -> Request:
        return library.plan(self._wish, self._out, self._means)

    def _repr_html_(self) -> str:
        try:
            return super()._repr_html_()
        except NothingMeasuredError:
            counts = _states(self._request)["state"].value_counts()
            said = ", ".join(f"{n} {state}" for state, n in counts.items())
            return html.note(f"{self.name}: {said}; nothing measured yet")


def _seeds(seeds: Given) -> Given:
    """A list of one seed is that seed, not a count."""
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        listed = [str(seed) for seed in seeds]
        return [f"{listed[0]}-{listed[0]}"] if len(listed) == 1 and listed[0].isdigit() else listed
    return seeds


def _states(request: Request) -> pd.DataFrame:
    rows = [
        {
            "stage": p.task.stage,
            "arm": p.task.config.arm,
            "epochs": p.task.config.pretrain.epochs,
            "seed": p.task.config.seed,
            "state": p.state,
            "run_id": p.task.run_id,
        }
        for p in request.survey()
    ]
    return pd.DataFrame(rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Keeps processes started meanwhile from running the calling script: they need none of it."""
    main = vars(sys.modules["__main__"])
    spec, file = main.get("__spec__"), main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main["__spec__"] = spec
        main |= {} if file is None else {"__file__": file}
