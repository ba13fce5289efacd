"""What each state file holds: one typed reader for all, and one error for what does not fit.

Files are written by this software, but damaged by disks and edited by hands.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from bench.api.rules import Amount, Natural, Range, Seed, Text, make_check
from bench.errors import CONTROL, DamagedError, StoreError, printable
from bench.store.states import STATES

Shape = Mapping[str, Any]
"""Type, with its rule where it has one, of each key; other keys are left as they are."""

RunId = Annotated[str, Text(r"(?!\.)[\w@+.-]{1,255}", "a run id")]

PLAN: Shape = {
    "schema": int,
    "preset": str,
    "arms": list[str],
    "baseline": str,
    "budgets": list[Natural],
    "seeds": list[Seed],
    "target_epochs": int | None,
    "endpoint": str,
    "secondary": list[str],
    "margin": Amount,
    "alpha": Annotated[float, Range(0, 1, "none")],
    "recipe": str,
    "ids": list[RunId],
    "warnings": list[str],
}

CONFIG: Shape = {
    "stage": str,
    "run_id": RunId,
    "parent": Annotated[str, Text(r"|(?!\.)[\w@+.-]{1,255}", "a run id or empty")],
    "config": dict[str, Any],
}

STATUS: Shape = {
    "state": Annotated[str, Text("|".join(STATES), f"one of {', '.join(STATES)}")],
    "stage": str,
    "failure": str,
    "message": str,
    "attempt": Natural,
    "step": int,
    "total": int,
    "started": float,
    "since": float,
    "since_step": int,
    "beat": float,
    "images_per_s": float | None,
    "data_wait_share": float | None,
    "loss": float | None,
}

METRICS: Shape = {"stage": str, "epoch": int, "step": int, "loss": float | None}

PROVENANCE: Shape = {
    "code": dict[str, Any],
    "versions": dict[str, str],
    "hardware": dict[str, Any],
    "data": str,
}

RESULT: Shape = {"run_id": str}

COMMAND: Shape = {"arguments": list[str], "folder": str}

ANY: Shape = {}


def read_state(path: Path, shape: Shape = ANY, required: tuple[str, ...] = ()) -> Any:
    """The JSON object in a state file, held to its shape; None if there is none.

    Raises:
        DamagedError: if it does not fit.
        StoreError: if it cannot be read.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read '{path}': {error.strerror}.") from error
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, "it is no JSON" if data.strip() else "it is empty") from error
    if not isinstance(values, dict):
        raise damaged(path, "it holds no JSON object")
    return held(values, shape, path, required)


def held(values: dict[str, Any], shape: Shape, path: Path, required: tuple[str, ...] = ()) -> Any:
    """The values, if they fit the shape; text without what steers a terminal.

    Raises:
        DamagedError: naming file and key.
    """
    for key in required:
        if key not in values:
            raise damaged(path, f"it lacks '{key}'")
    for key in misfits(values, shape):
        shown = printable(json.dumps(values[key], default=str))[:60]
        raise damaged(path, f"'{key}' cannot be {shown}")
    return clean(values)


def misfits(values: Mapping[str, Any], shape: Shape) -> list[str]:
    """Keys whose values do not fit the shape."""
    return [k for k, hint in shape.items() if k in values and not fits(values[k], hint)]


def damaged(path: Path, why: str) -> DamagedError:
    """The error for a file that does not hold what it should, with what to do."""
    name = printable("/".join(path.parts[-3:]))
    todo = "Restore it, or delete its folder"
    if path.parent.parent.name == "runs":
        todo = "The command of its study computes anew what is missing; or restore it"
    return DamagedError(f"'{name}' is damaged or was edited: {why}. {todo}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a type, and within its rule."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        check = make_check(hint)
        return fits(value, inner[0]) and not (check and check(value))
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, h) for h in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(v, inner[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(v, inner[1]) for v in value.values())
    if hint in (int, float):
        wanted = int if hint is int else int | float
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, hint)


def clean(value: Any) -> Any:
    """The same with control characters escaped in all its text."""
    if isinstance(value, str):
        return printable(value) if CONTROL.search(value) else value
    if isinstance(value, list):
        return [clean(v) for v in value]
    if isinstance(value, dict):
        return {clean(k): clean(v) for k, v in value.items()}
    return value
