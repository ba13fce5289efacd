"""Study folders: what was planned, how it was started, and the tables; ``<out>/studies/<name>/``.

``plan.json`` fixes cells and analysis before there are results, ``resolved.yaml`` lists every
setting of each arm as it was first planned, ``command.json`` keeps the arguments.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import DamagedError, NothingMeasuredError, UsageError, unknown
from bench.store import shapes
from bench.store.files import set_aside, write_bytes, write_json
from bench.store.shapes import read_state
from bench.store.store import Store

STUDIES, PLAN = "studies", "plan.json"

FIXED = ("target_epochs", "baseline", "margin", "alpha")
"""Parts of the analysis that stay as they were first planned."""


@dataclass(frozen=True)
class StudyFolder:
    """One study's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    def plan(self) -> dict[str, Any] | None:
        """The values of plan.json, or None where nothing was planned.

        Raises:
            StoreError: if the file is damaged.
        """
        return read_state(self.path / PLAN, shapes.PLAN, ("ids",))

    def arguments(self) -> list[str]:
        """The command line that started the study.

        Raises:
            UsageError: if it was not kept.
        """
        kept = read_state(self.path / "command.json", shapes.COMMAND, ("arguments",))
        if kept is None:
            raise UsageError(
                f"'{self.path}' does not say how it was started; use --retry there instead."
            )
        return list(kept["arguments"])

    def started_in(self) -> Path:
        """The folder to which the command's paths relate; this one, where it is not there."""
        kept = read_state(self.path / "command.json", shapes.COMMAND) or {}
        folder = Path(kept.get("folder", "."))
        return folder if folder.is_dir() else Path()

    def note_arguments(self, arguments: Sequence[str]) -> None:
        """Keeps the command line and where it was given; one that is damaged is set aside."""
        try:
            read_state(self.path / "command.json", shapes.COMMAND, ("arguments",))
        except DamagedError:
            set_aside(self.path / "command.json")
        kept = {"arguments": list(arguments), "folder": os.getcwd()}
        write_json(self.path / "command.json", kept)

    def freeze(self, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Writes the plan and the arms' resolved settings, once: the first plan of a study stands.

        New cells are added to a plan that is there, and so is what it warns of: an arm tuned
        unlike the others must not join unsaid. Its seeds, budgets, arms and analysis stay, and a
        report lists what was added as deviations.

        Returns:
            What was asked for otherwise and does not count.
        """
        kept = self.plan()
        self._add_settings(settings)
        if kept is None:
            write_json(self.path / PLAN, dict(plan))
            return []
        lists = {key: [*kept.get(key, []), *plan.get(key, [])] for key in ("ids", "warnings")}
        grown = {key: list(dict.fromkeys(both)) for key, both in lists.items()}
        grown = {key: both for key, both in grown.items() if both != kept.get(key, [])}
        if grown:
            write_json(self.path / PLAN, {**kept, **grown})
        return self.standing(plan)

    def standing(self, plan: Mapping[str, Any]) -> list[str]:
        """What of a plan does not count, because the study was planned otherwise before."""
        kept = self.plan()
        if kept is None:
            return []
        return [
            f"this study was planned with {key}={kept.get(key)}, which stands; "
            f"give another --name to plan one with {plan.get(key)}"
            for key in FIXED
            if kept.get(key) != plan.get(key)
        ] + self._other_tasks(kept, plan)

    def _add_settings(self, settings: Mapping[str, Any]) -> None:
        """Adds arms to the resolved settings, a block of YAML each; one that is there stays."""
        path = self.path / "resolved.yaml"
        text = path.read_bytes() if path.exists() else b""
        there = text.splitlines()
        blocks = [yaml.safe_dump({a: s}, sort_keys=False).encode() for a, s in settings.items()]
        joined = [block for block in blocks if block.splitlines()[0] not in there]
        if joined:
            write_bytes(path, text + b"".join(joined))

    def _other_tasks(self, kept: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
        """What holds, and what to do, where other tasks are asked for than were planned."""
        planned, asked = ([e.removesuffix("_top1") for e in _endpoints(p)] for p in (kept, plan))
        if not planned or planned == asked:
            return []
        more = " ".join(name for name in asked if name not in planned)
        todo = "ask for the same, or"
        if more:
            todo = f"to add scores to its cells, 'evaluate {self.name} --with {more}'; else"
        return [
            f"this study was planned with the tasks {', '.join(planned)}, which stand; cells with "
            f"{', '.join(asked)} come into tables apart: {todo} give another --name"
        ]


def _endpoints(plan: Mapping[str, Any]) -> list[str]:
    """The endpoints of a plan, the primary one first."""
    return [plan["endpoint"], *plan.get("secondary", [])] if "endpoint" in plan else []


def folder_of(store: Store, name: str) -> StudyFolder:
    """The folder of a study, whether it is there or not."""
    return StudyFolder(store.root / STUDIES / name)


def planned(store: Store) -> list[StudyFolder]:
    """Every planned study, the newest last."""
    plans = (store.root / STUDIES).glob(f"*/{PLAN}")
    return [StudyFolder(p.parent) for p in sorted(plans, key=lambda p: p.stat().st_mtime)]


def newest_with_results(store: Store) -> StudyFolder:
    """The study planned last of those with a finished cell.

    Raises:
        NothingMeasuredError: if there is none.
    """
    for folder in reversed(planned(store)):
        with contextlib.suppress(DamagedError):
            if any(store.run(name).is_done() for name in (folder.plan() or {}).get("ids", [])):
                return folder
    raise NothingMeasuredError(f"no study in '{store.root / STUDIES}' has a result yet.")


def find(store: Store, name: str = "") -> StudyFolder:
    """A planned study by name, or the newest one.

    Raises:
        UsageError: if there is none of that name.
        NothingMeasuredError: if there are none at all.
    """
    names = [folder.name for folder in planned(store)]
    if name and name not in names:
        raise unknown("study", name, names)
    if not names:
        raise NothingMeasuredError(f"no studies in '{store.root / STUDIES}'.")
    return folder_of(store, name or names[-1])
