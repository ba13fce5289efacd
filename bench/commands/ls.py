"""``ls``: methods, data sets, presets, studies, runs, settings and published numbers there are."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench import registry
from bench.api.rules import Range, hints
from bench.commands.flags import add_out_flag
from bench.errors import DamagedError, unknown
from bench.plan import keys, layers
from bench.report import reference
from bench.report.words import number
from bench.stats.analysis import endpoint_label
from bench.store import studies
from bench.store.store import Store


def show_list(args: argparse.Namespace) -> int:
    """Prints what there is of a kind.

    Raises:
        UsageError: for an unknown kind or section.
    """
    if args.kind not in (*registry.KINDS, *MAKERS):
        raise unknown("kind", args.kind, (*registry.KINDS, *MAKERS))
    if args.kind in MAKERS:
        print(MAKERS[args.kind](args))
    else:
        print("\n".join(registry.KINDS[args.kind].names()))
    return 0


def _presets(_: argparse.Namespace) -> str:
    return "\n".join(layers.preset_names())


def _run_ids(args: argparse.Namespace) -> str:
    return "\n".join(f.run_id for f in Store(Path(args.out)).folders())


def _studies(args: argparse.Namespace) -> str:
    """The studies of a folder, newest last, with what they compare."""
    rows = []
    for folder in studies.planned(Store(Path(args.out))):
        try:
            plan = folder.plan() or {}
        except DamagedError:
            plan = {"arms": ["(its plan is damaged)"]}
        budgets = ",".join(map(str, plan.get("budgets", [])))
        arms, seeds = ",".join(plan.get("arms", [])), len(plan.get("seeds", []))
        report = "yes" if (folder.path / "report.md").exists() else ""
        rows.append([folder.name, arms, budgets, str(seeds), report])
    heads = ["study", "methods", "epochs", "seeds", "report"]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


# --- settings ---------------------------------------------------------------------------------


def _settings(args: argparse.Namespace) -> str:
    """Every setting of a section, or of all: default, range, and what its source says."""
    sections = _sections()
    if args.section and args.section not in sections:
        raise unknown("section", args.section, sections)
    wanted = [args.section] if args.section else list(sections)
    rows = [
        [textwrap.fill(cell, width) for cell, width in zip(row, WIDTHS, strict=True)]
        for name in wanted
        for row in _rows(name, sections[name])
    ]
    heads = ["setting", "default", "range", "source"]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


WIDTHS = (80, 24, 30, 60)
"""Most characters a line of each column; tabulate's own wrapping turns ``False`` into ``True``."""


def _sections() -> dict[str, type]:
    kinds = (registry.TASKS, registry.METHODS, registry.PLUGINS)
    own = {name: kind.config(name) for kind in kinds for name in kind.names()}
    return {**keys.SECTIONS, **own}


def _rows(section: str, cls: type) -> list[list[str]]:
    said = _documented(cls)
    return [
        [f"{section}.{f.name}", _default(f), _range(hints(cls)[f.name]), said.get(f.name, "")]
        for f in dataclasses.fields(cls)
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return str(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    return "(the preset's)"


def _range(hint: Any) -> str:
    """A setting's type and rule in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin is typing.Annotated:
        limits = [_limits(rule) for rule in inner[1:] if isinstance(rule, Range)]
        return " ".join([_range(inner[0]), *limits])
    if origin is not None and inner:
        return " or ".join(dict.fromkeys(_range(i) for i in inner if i is not Ellipsis))
    return getattr(hint, "__name__", str(hint)).replace("NoneType", "none")


def _limits(rule: Range) -> str:
    left = "[" if rule.ends in ("both", "low") else "("
    right = "]" if rule.ends in ("both", "high") else ")"
    return f"{left}{rule.low:g}, {rule.high:g}{right}"


ENTRY = re.compile(r"^ {8}(\w+): (.*(?:\n {12,}.*)*)", re.MULTILINE)
COMMENT = re.compile(r"^    (\w+): .*  # (.+)$", re.MULTILINE)


def _documented(cls: type) -> dict[str, str]:
    """What a section says of each setting, with its source: in its docstring, or beside it."""
    said: dict[str, str] = {}
    with contextlib.suppress(OSError, TypeError):  # no source to be read
        said = dict(COMMENT.findall(inspect.getsource(cls)))
    entries = ENTRY.findall(cls.__doc__ or "")
    return said | {name: " ".join(text.split()) for name, text in entries}


# --- published --------------------------------------------------------------------------------


def _published(_: argparse.Namespace) -> str:
    """Published accuracies by method, epochs and source: a column beside results, never an arm."""
    order = {name: i for i, name in enumerate(reference.PROTOCOLS)}
    found = sorted(
        reference.published(),
        key=lambda r: (r["method"], r["encoder"], order[r["protocol"]], float(r["epochs"] or 0)),
    )
    rows = [
        [
            *(row[name] for name in ("method", "encoder", "epochs")),
            endpoint_label(reference.PROTOCOLS[row["protocol"]]),
            number(float(row["top1"])),
            f"{row['implementation']}: {row['source']} ({row['quality']})",
        ]
        for row in found
    ]
    heads = ["method", "encoder", "epochs", "endpoint", "ImageNet top-1", "source"]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


MAKERS: dict[str, Callable[[argparse.Namespace], str]] = {
    "presets": _presets,
    "studies": _studies,
    "runs": _run_ids,
    "settings": _settings,
    "published": _published,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``ls`` takes."""
    add_out_flag(parser)
    kinds = ", ".join([*registry.KINDS, *MAKERS])
    parser.add_argument("kind", nargs="?", default="methods", metavar="KIND", help=kinds)
    parser.add_argument("section", nargs="?", default="", metavar="SECTION", help="for settings")
