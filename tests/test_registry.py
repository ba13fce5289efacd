"""One file, one row: every file of a kind has its row, and every row its file."""

from __future__ import annotations

import argparse
import importlib
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import registry
from bench.commands.table import COMMANDS
from bench.errors import UsageError
from bench.rows import Row

ROOT = Path(__file__).parents[1]
ROOMS = {
    "datasets": "bench/data/sets",
    "trackers": "bench/train/sinks",
    "statistics": "bench/stats/columns",
}


def modules(room: str) -> set[str]:
    files = (ROOT / room).glob("*.py")
    return {f"{room.replace('/', '.')}.{p.stem}" for p in files if p.stem != "__init__"}


@pytest.mark.parametrize(("kind", "room"), ROOMS.items())
def test_every_file_of_a_room_has_a_row(kind: str, room: str) -> None:
    rows = {row.target.partition(":")[0] for row in registry.KINDS[kind].rows.values()}
    assert rows == modules(room)


def test_every_method_is_a_folder() -> None:
    folders = {f"baselines.{p.parent.name}" for p in (ROOT / "baselines").glob("*/__init__.py")}
    targets = {row.target.partition(":")[0] for row in registry.METHODS.rows.values()}
    assert {t.rpartition(".")[0] for t in targets} == folders


@pytest.mark.parametrize("kind", registry.KINDS.values(), ids=lambda k: k.name)
def test_every_row_names_something_there(kind: registry.Kind[Row]) -> None:
    for name, row in kind.rows.items():
        needs = getattr(row, "needs", "")
        if not needs or find_spec(needs):
            assert callable(kind.load(name)), name


def test_every_sub_command_is_one_file_and_one_row() -> None:
    helpers = {"parser", "table", "flags", "progress", "publish", "cluster", "recipe", "streams"}
    files = {name.rpartition(".")[2] for name in modules("bench/commands")} - helpers - {"commands"}
    rows = [command.action.partition(":")[0] for command in COMMANDS.values()]
    assert sorted(rows) == sorted(files)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_has_flags_and_an_action(name: str) -> None:
    parser = argparse.ArgumentParser()
    COMMANDS[name].add_flags(parser)
    assert parser.format_help()
    module, _, action = COMMANDS[name].action.partition(":")
    assert callable(getattr(importlib.import_module(f"bench.commands.{module}"), action))


def test_packages_of_the_rows_are_held_to_the_contracts() -> None:
    """A plug-in's package in this tree is checked by every tool, so pyproject names it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    here = {name for name in registry.packages() if (ROOT / name).is_dir()}
    assert here == set(project["importlinter"]["root_packages"])


def test_an_unknown_name_is_told_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"unknown launcher 'slrum'. Did you mean 'slurm'\?"):
        registry.LAUNCHERS.row("slrum")
