"""What a user types: lists of arms, budgets, seeds, data sets and settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import UsageError, shown
from bench.plan.keys import Layer
from bench.plan.reading import read_text


def example_arm(inside: str = "") -> str:
    """A method in a plug-in, as help and messages write one; ``inside`` are terms and settings."""
    method, plugin = (next(iter(kind.rows)) for kind in (registry.METHODS, registry.PLUGINS))
    return f"{method}+{plugin}" + (f"({inside})" if inside else "")


@dataclass(frozen=True)
class Wrap:
    """A plug-in of an arm: terms asked for (``None``: those of the layers), settings as typed."""

    name: str
    terms: tuple[str, ...] | None = None
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Arm:
    """A row of the table: a method, its plug-ins, and an alias."""

    method: str
    plugins: tuple[Wrap, ...] = ()
    alias: str = ""


MOST_EPOCHS, MOST_SEEDS, LARGEST_SEED = 100_000, 1000, 2**31 - 1
"""What a study may ask for: the bounds of its fields, and seeds that a machine can serve."""


def split_list(text: str | Iterable[str]) -> list[str]:
    """Splits at commas and blanks, not inside parentheses."""
    text = text if isinstance(text, str) else " ".join(text)
    return [t for t in re.split(r"[,\s]+(?![^(]*\))", text.strip()) if t]


def parse_arm(text: str) -> Arm:
    """``mae``, ``mae+x``, ``mae+x(a,b)`` with terms or, needing no quotes, ``mae+x:a.b``.

    ``mae+x(a,key=value)`` has settings of its own; in ``mae+x:a.key=value`` a point before a
    letter separates. ``mae@again`` is the same method under another name, for an A/A
    comparison.

    Raises:
        UsageError: for unknown names or unreadable text.
    """
    body, at, alias = text.partition("@")
    if at and not re.fullmatch(r"[\w.-]+", alias):
        example = f"{example_arm()}@again"
        raise UsageError(f"cannot read '{shown(text)}'. The other name goes last: {example}.")
    method, *parts = re.split(r"\+(?![^(]*\))", body)
    registry.METHODS.config(method)
    plugins = tuple(_parse_wrap(part, text) for part in parts)
    names = [plugin.name for plugin in plugins]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"'{text}' wraps '{name}' twice. Once is all it takes.")
    return Arm(method, plugins, alias)


def _parse_wrap(part: str, text: str) -> Wrap:
    """``x``, ``x(a,key=value)`` or ``x:a.key=value``."""
    found = re.fullmatch(r"([\w-]+)(?:\(([^()]*)\)|:([^(),\s]+))?", part)
    name, inside, dotted = found.groups() if found else (part, None, None)
    split = r"[,\s]+(?![^\[]*\])" if dotted is None else r"\.+(?=[^\W\d]|$)"
    items = [item for item in re.split(split, inside or dotted or "") if item]
    if not found or not all(re.fullmatch(r"\w+(=.*)?", item) for item in items):
        raise UsageError(
            f"cannot read plug-in '{shown(part)}' in '{shown(text)}'. "
            f"Write {example_arm('TERM')}, with settings {example_arm('TERM,KEY=VALUE')}."
        )
    registry.PLUGINS.config(name)
    terms = tuple(item for item in items if "=" not in item)
    pairs = [item.partition("=")[::2] for item in items if "=" in item]
    settings = dict(pairs)
    if len(settings) < len(pairs):
        raise UsageError(f"'{text}' sets a setting of '{name}' twice. Keep one.")
    bare = (inside is None and dotted is None) or (settings and not terms)
    return Wrap(name, None if bare else terms, tuple(settings.items()))


def parse_arms(text: str | Iterable[str]) -> list[Arm]:
    """A list of arms, without repetitions.

    Raises:
        UsageError: if it is empty or holds an unknown name.
    """
    arms = list(dict.fromkeys(parse_arm(t) for t in split_list(text)))
    if not arms:
        known = ", ".join(registry.METHODS.names())
        example = f"--methods {registry.METHODS.ordered()[0]},{example_arm()}"
        raise UsageError(f"no methods given. Known: {known}. Example: {example}.")
    return arms


def parse_epochs(text: str | Iterable[str]) -> list[int]:
    """Budgets in epochs, ascending: ``100,200,400``.

    Raises:
        UsageError: for an empty list, or anything but positive whole numbers.
    """
    budgets = []
    for item in split_list(text):
        if not re.fullmatch(r"0*[1-9]\d*", item, re.ASCII):
            raise UsageError(
                f"epoch budget '{shown(item)}' is not a positive whole number. "
                "Example: --epochs 100,200."
            )
        if len(item) > 9 or int(item) > MOST_EPOCHS:
            raise UsageError(
                f"epoch budget '{shown(item)}' is above {MOST_EPOCHS}, the most there can be."
            )
        budgets.append(int(item))
    if not budgets:
        raise UsageError("no epoch budgets given. Example: --epochs 100,200,400.")
    return sorted(set(budgets))


def parse_seeds(text: str | Iterable[str]) -> list[int]:
    """Seeds: a count (``5`` is 0 to 4), a range (``3-7``) or a list (``0,2,5``, or ``7,``).

    Raises:
        UsageError: for none, or anything else.
    """
    given = [text] if isinstance(text, str) else [*text]
    items = split_list(given)
    listed = len(items) > 1 or any("," in part for part in given)
    seeds: list[int] = []
    for item in items:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", item, re.ASCII)
        if not found:
            raise UsageError(
                f"cannot read seeds '{shown(item)}'. Write a count 5, a range 0-4 or 0,1,2."
            )
        first, last = (None if n is None else min(int(n[-30:]), 10**12) for n in found.groups())
        assert first is not None
        if last is None and listed:
            first, last = first, first
        wanted = range(first, last + 1) if last is not None else range(first)
        if len(wanted) > MOST_SEEDS or (wanted and wanted[-1] > LARGEST_SEED):
            raise UsageError(
                f"seeds '{shown(item)}': at most {MOST_SEEDS} of them, none above {LARGEST_SEED}."
            )
        if not wanted and last is not None:
            raise UsageError(f"seeds '{item}' run backwards. Write the smaller one first.")
        seeds += wanted
    if not seeds:
        raise UsageError("zero seeds leave nothing to run. Write --seeds 3 for seeds 0, 1 and 2.")
    if len(set(seeds)) > MOST_SEEDS:
        raise UsageError(f"{len(set(seeds))} seeds are more than {MOST_SEEDS}.")
    return sorted(set(seeds))


def parse_data(text: str) -> tuple[str, str]:
    """Data-set name and place: ``digits``, ``cifar10:DIR``, ``npz:FILE``, ``torch/NAME:DIR``.

    A path alone, as ``./images``, is ``folder:./images``, or ``npz:`` where it ends so. ``hf:`` is
    short for ``hfds/`` (:func:`_hugging_face`).

    Raises:
        UsageError: for an unknown name, or a missing or unreadable folder or file.
    """
    name, _, root = text.partition(":")
    if _is_path(text):
        name, root = "npz" if text.endswith(".npz") else "folder", text
    if name == "hf":
        name, root = _hugging_face(root)
    row = registry.dataset(name)
    if row.needs_root and not root:
        kind, place = ("file", "FILE") if row.file else ("folder", "DIR")
        raise UsageError(f"data set '{name}' needs a {kind}: --data {name}:{place}.")
    if row.file and not os.path.isfile(os.path.expanduser(root)):
        raise UsageError(f"data file '{shown(root, 200)}' does not exist. Give a path to a file.")
    if root and not row.file and not os.path.isdir(os.path.expanduser(root)):
        raise UsageError(
            f"data folder '{shown(root, 200)}' does not exist. "
            "Mount or copy the data, or use --data digits."
        )
    return name, str(Path(os.path.expanduser(root)).resolve()) if root else ""


SAVED = "dataset_dict.json"
"""What ``save_to_disk`` leaves in a folder of several splits."""


def place_of(name: str, data: str | None) -> str:
    """Where the images of a stored run's data set lie, as ``--data`` says; empty for built-in ones.

    Raises:
        UsageError: if it says nothing and they lie in files, or names another data set.
    """
    given, root = parse_data(data) if data else (name, "")
    if given != name:
        raise UsageError(f"--data {given} is not the data set of the run, '{name}'.")
    if registry.dataset(name).needs_root and not root:
        where = "FILE" if registry.dataset(name).file else "DIR"
        raise UsageError(f"the run's images are needed here: add --data {name}:{where}.")
    return root


def _hugging_face(text: str) -> tuple[str, str]:
    """``hfds/NAME`` and its folder, of ``NAME``, ``NAME:DIR`` or a folder of ``save_to_disk``.

    Without DIR it is the library's own cache.
    """
    saved = Path(os.path.expanduser(text))
    if (saved / SAVED).is_file():
        return f"hfds/{saved.resolve().name}", text
    own, _, root = text.partition(":")
    if not own:
        raise UsageError("--data hf: needs a name or a folder: hf:NAME, hf:NAME:DIR or hf:DIR.")
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return f"hfds/{own}", root or os.environ.get("HF_DATASETS_CACHE", f"{home}/datasets")


def _is_path(text: str) -> bool:
    """Whether ``text`` looks like a path, or is there and begins with no data set's name."""
    if text in (".", "..", "~") or text.startswith(("/", "./", "../", "~/")):
        return True
    known = {name.rstrip("/") for name in registry.DATASETS.names()}
    there = os.path.isdir(text) or (text.endswith(".npz") and os.path.isfile(text))
    return there and re.split("[:/]", text)[0] not in {*known, "hf"}


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
                f"cannot read '{shown(item)}'. Write SECTION.KEY=VALUE, as pretrain.blr=1e-3."
            )
        inner = layer
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UsageError(f"'{item}': '{key}' has a value already, so it is no section.")
        listed = value.startswith(("[", "{"))
        inner[keys[-1]] = read_text(value, f"the value of '{item}'") if listed else value
    return layer
