"""YAML from a user's file or line, read strictly: no tags, aliases, repeated or odd keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UsageError, printable

LARGEST, DEEPEST = 1 << 20, 20
"""Bytes of a suite file, and mappings or lists inside one another, at most."""


DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")


class _Strict(yaml.SafeLoader):
    """Refuses what a suite file never needs and a mistake or a bomb would."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node, within limits."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not read: write it out", problem_mark=mark
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="it is nested too deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are words, each once."""
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            merges = key_node.tag == "tag:yaml.org,2002:merge"
            key = "<<" if merges else self.construct_object(key_node, deep=True)
            problem = "" if isinstance(key, str) else f"key {key!r} is no word: put it in quotes"
            problem = problem or (f"'{key}' is given twice" if key in found else "")
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
        return found


def _mapping(loader: _Strict, node: Any) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Strict, node: Any) -> int:
    """A decimal number: YAML 1.1 reads 010 as eight and 1:30 as ninety."""
    if not DECIMAL.fullmatch(node.value):
        problem = f"'{node.value}' is no plain number: write it in decimal, or in quotes"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return int(node.value)


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)
_Strict.add_constructor("tag:yaml.org,2002:int", _integer)


def read_text(text: str, where: str) -> Any:
    """The value that YAML text stands for.

    Raises:
        UsageError: in one sentence, if it is not YAML of this kind.
    """
    try:
        return yaml.load(text, _Strict)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"{where} is not valid YAML: {_said(error)}") from error


def _said(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    text = getattr(error, "problem", None) or str(error) or type(error).__name__
    return printable(" ".join(str(text).split()))[:200] + place + "."


def read_file(path: Path) -> Any:
    """The value in a suite file.

    Raises:
        UsageError: if it is missing, no text, too large, or not YAML of this kind.
    """
    name = f"suite file '{path}'"
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {name}: {reason}.") from error
    if len(data) > LARGEST:
        raise UsageError(f"{name} is larger than {LARGEST >> 20} MiB, so it is no suite file.")
    try:
        return read_text(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not text in UTF-8 (byte {error.start}).") from error
