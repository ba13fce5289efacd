"""Sub-commands by name; '' is the main command. Reading the table imports none of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

DESCRIPTION = """\
Measure how many pre-training epochs a masked-image-modelling variant saves.

Without a sub-command: run a study (methods x epochs x seeds), print its table and save it.
Only what is missing is computed; a stopped study goes on where it was.
"""


@dataclass(frozen=True)
class Command:
    """A sub-command: its line of help, and where its action and its flags are (``module:name``).

    ``study`` says that it plans one: its help explains settings and hides what is rarely needed.
    ``settings`` says that it reads settings (``SECTION.KEY=VALUE``) without planning one.
    """

    help: str
    action: str
    flags: str
    study: bool = False
    settings: bool = False

    def run(self, args: argparse.Namespace) -> int:
        """Does what it is for; the exit code."""
        return int(_load(self.action)(args))

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Puts its flags into a parser."""
        _load(self.flags)(parser)


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"bench.commands.{module}"), name)
    return found


COMMANDS: dict[str, Command] = {
    "": Command(DESCRIPTION, "study:run_study", "flags:add_all", study=True),
    "plan": Command(
        "show the cells of a study and what is missing (the same as --dry-run)",
        "plan:show_plan",
        "flags:add_all",
        study=True,
    ),
    "tune": Command(
        "search settings (grid, random, TPE), every trial recorded",
        "tune:tune",
        "tune:add_flags",
        study=True,
    ),
    "status": Command(
        "studies in a results folder and their times; STUDY: its runs",
        "status:show_status",
        "status:add_flags",
    ),
    "top": Command("live view of all runs, from their files alone", "top:top", "top:add_flags"),
    "report": Command(
        "rebuild the tables of a study from its run folders",
        "report:show_report",
        "report:add_flags",
    ),
    "evaluate": Command(
        "add the scores of further tasks to finished cells",
        "evaluate:evaluate",
        "evaluate:add_flags",
        settings=True,
    ),
    "compare": Command("two studies cell by cell", "compare:show_compare", "compare:add_flags"),
    "power": Command(
        "what more seeds would resolve, and their cost", "power:show_power", "power:add_flags"
    ),
    "export": Command(
        "pack a study or run into one archive", "export:export_study", "export:add_flags"
    ),
    "import": Command(
        "bring an archive's runs into a results folder",
        "import_:import_archive",
        "import_:add_flags",
    ),
    "analyze": Command(
        "layers of runs: heterogeneity and attention mass against depth",
        "analyze:analyze",
        "analyze:add_flags",
        settings=True,
    ),
    "log": Command(
        "how a run goes or went: epochs, losses, images/s, its log", "log:show_log", "log:add_flags"
    ),
    "show": Command(
        "draw original, masked and reconstructed images of a run or checkpoint",
        "show:show_reconstructions",
        "show:add_flags",
        settings=True,
    ),
    "retry": Command(
        "run the failed and blocked cells of a study again, as it was started",
        "retry:retry",
        "retry:add_flags",
    ),
    "cancel": Command("stop runs; their states are kept", "cancel:cancel", "cancel:add_flags"),
    "doctor": Command(
        "check versions, folder, devices, signals, data; --launcher slurm: the cluster",
        "doctor:doctor",
        "doctor:add_flags",
        settings=True,
    ),
    "ls": Command(
        "list what can be named: methods, presets, studies, runs, settings, published numbers",
        "ls:show_list",
        "ls:add_flags",
    ),
}
