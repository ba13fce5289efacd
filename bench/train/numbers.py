"""Nested values of logged lines and settings as pairs of a name and a plain value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PLACE = ("stage", "epoch", "step")
"""Keys of a logged line that say where it belongs."""


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs in order: mappings name their items ``a.b``, lists count theirs ``a.0``."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def measured(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a logged line by ``stage/name``, without those that say where it belongs."""
    stage = line.get("stage", "run")
    return {
        f"{stage}/{name}": float(value)
        for name, value in flat(line)
        if name not in PLACE and isinstance(value, int | float)
    }
