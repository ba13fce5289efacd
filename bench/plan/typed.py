"""What a user types: lists of arms, budgets, seeds, data sets and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import registry
from bench.errors import UsageError
from bench.plan.layers import Layer


@dataclass(frozen=True)
class Arm:
    """A row of the table: a method, its plug-ins with the terms asked for, and an alias."""

    method: str
    plugins: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    alias: str = ""


def split_list(text: str | Iterable[str]) -> list[str]:
    """Splits at commas and blanks, not inside parentheses."""
    text = text if isinstance(text, str) else " ".join(text)
    return [t for t in re.split(r"[,\s]+(?![^(]*\))", text.strip()) if t]


def parse_arm(text: str) -> Arm:
    """``mae``, ``mae+mto``, ``mae+mto(spa,e)`` or, needing no quotes, ``mae+mto:spa.e``.

    ``mae@again`` is the same method under another name, for an A/A comparison.

    Raises:
        UsageError: for unknown names or unreadable text.
    """
    body, at, alias = text.partition("@")
    if at and not re.fullmatch(r"[\w.-]+", alias):
        raise UsageError(f"cannot read '{text}'. The other name goes last: mae+mto@again.")
    method, *parts = body.split("+")
    registry.method_config(method)
    plugins = []
    for part in parts:
        found = re.fullmatch(r"([\w-]+)(?:\(([\w,\s]*)\)|:([\w.]+))?", part)
        if not found:
            raise UsageError(f"cannot read plug-in '{part}' in '{text}'. Write mae+mto(spa,e).")
        name, inside, dotted = found.groups()
        registry.plugin_config(name)
        listed = inside if inside is not None else dotted
        terms = None if listed is None else tuple(t for t in re.split(r"[,.\s]+", listed) if t)
        plugins.append((name, terms))
    return Arm(method, tuple(plugins), alias)


def parse_arms(text: str | Iterable[str]) -> list[Arm]:
    """A list of arms, without repetitions.

    Raises:
        UsageError: if it is empty or holds an unknown name.
    """
    arms = list(dict.fromkeys(parse_arm(t) for t in split_list(text)))
    if not arms:
        known = ", ".join(registry.names("methods"))
        raise UsageError(f"no methods given. Known: {known}. Example: --methods mae,mae+mto.")
    return arms


def parse_epochs(text: str | Iterable[str]) -> list[int]:
    """Budgets in epochs, ascending: ``100,200,400``.

    Raises:
        UsageError: for an empty list, or anything but positive whole numbers.
    """
    budgets = []
    for item in split_list(text):
        if not item.isdigit() or int(item) < 1:
            raise UsageError(
                f"epoch budget '{item}' is not a positive whole number. Example: --epochs 100,200."
            )
        budgets.append(int(item))
    if not budgets:
        raise UsageError("no epoch budgets given. Example: --epochs 100,200,400.")
    return sorted(set(budgets))


def parse_seeds(text: str | Iterable[str]) -> list[int]:
    """Seeds: a count (``5`` is 0 to 4), a range (``3-7``) or a list (``0,2,5``).

    Raises:
        UsageError: for none, or anything else.
    """
    items = split_list(text)
    seeds: list[int] = []
    for item in items:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not found:
            raise UsageError(f"cannot read seeds '{item}'. Write a count 5, a range 0-4 or 0,1,2.")
        first, last = found.groups()
        if last is not None:
            seeds += range(int(first), int(last) + 1)
        elif len(items) == 1:
            seeds += range(int(first))
        else:
            seeds.append(int(first))
    if not seeds:
        raise UsageError("zero seeds leave nothing to run. Write --seeds 3 for seeds 0, 1 and 2.")
    return sorted(set(seeds))


def parse_data(text: str) -> tuple[str, str]:
    """Data-set name and folder: ``digits``, ``cifar10:DIR``, ``imagenet:DIR``, ``torch/NAME:DIR``.

    Raises:
        UsageError: for an unknown name, or a missing or unreadable folder.
    """
    name, _, root = text.partition(":")
    row = registry.dataset("timm" if "/" in name else name)
    if row.needs_root and not root:
        raise UsageError(f"data set '{name}' needs a folder: --data {name}:DIR.")
    if root and not Path(root).expanduser().is_dir():
        raise UsageError(
            f"data folder '{root}' does not exist. Mount or copy the data, or use --data digits."
        )
    return name, str(Path(root).expanduser().resolve()) if root else ""


def parse_overrides(items: Iterable[str]) -> Layer:
    """``pretrain.blr=1.5e-4`` and the like to a nested layer.

    Raises:
        UsageError: for text without a section and a value.
    """
    layer: dict[str, Any] = {}
    for item in items:
        path, equals, value = item.partition("=")
        keys = path.split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise UsageError(
                f"cannot read '{item}'. Write SECTION.KEY=VALUE, as pretrain.blr=1e-3."
            )
        inner = layer
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UsageError(f"'{item}': '{key}' has a value already, so it is no section.")
        try:
            inner[keys[-1]] = yaml.safe_load(value) if value.startswith(("[", "{")) else value
        except yaml.YAMLError as error:
            raise UsageError(f"cannot read the value of '{item}': {error}") from error
    return layer
