"""The studies that are disturbed, their commands, and what must not change."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.commands.parser import guarded, run
from bench.store.folder import RunFolder
from bench.store.store import Store
from tests.support.tiny_runs import CLOCKS, MACHINE, TINY

SAID = Path(tempfile.gettempdir()) / f"chaos-{os.getpid()}.log"
"""What the last command said."""

ARGUMENTS = ["--preset", "procedural", "--seeds", "1", "--name", "s", "--retry"]
ARGUMENTS += ["--device", "cpu", "--threads", "1", "--workers", "0", "--checkpoint-every", "0.2"]

Cells = tuple[str, str]
"""Methods and budgets."""

SIX: Cells = ("mae,mae+mto", "40,60,80")
"""Long enough to be met by kills in every stage."""

TWO: Cells = ("mae", "2,3")
"""As short as can be: every file of it is met."""


def command(out: Path, cells: Cells, launcher: str) -> list[str]:
    """The command line of a study; a failure that a fault caused is tried again."""
    asked = ["--methods", cells[0], "--epochs", cells[1], "--launcher", launcher, "--out", str(out)]
    return [*ARGUMENTS, *asked, *(["--jobs", "2"] if launcher == "local" else []), *TINY]


def forked(arguments: list[str], before: Callable[[], None] = lambda: None) -> int:
    """Starts a command in a forked process and session of its own; its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    log = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(log, number)
    try:
        before()
        os._exit(guarded(lambda: run(arguments)))
    except BaseException:
        traceback.print_exc()
        os._exit(99)


def ended(child: int) -> int:
    """Waits for a process: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def numbers(out: Path) -> dict[str, Any]:
    """Weights, records and metrics by run, and the tables of scores, without clocks."""
    found: dict[str, Any] = {f.run_id: _of(f) for f in Store(out).folders()}
    tables = (out / "studies" / "s" / f"{name}.csv" for name in ("accuracy", "differences"))
    return found | {path.name: path.read_bytes() for path in tables}


def _of(folder: RunFolder) -> tuple[dict[str, Any], list[str], dict[str, bytes]]:
    record = {k: v for k, v in (folder.result() or {}).items() if k not in CLOCKS | MACHINE}
    metrics = sorted(json.dumps(m, sort_keys=True) for m in folder.metrics())
    weights = {f.name: f.read_bytes() for f in sorted(folder.path.glob("*.safetensors"))}
    return record, metrics, weights


def undisturbed(
    out: Path, cells: Cells, before: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The numbers of a study that nothing disturbs."""
    code = ended(forked(command(out, cells, "inline"), before))
    if code:
        sys.exit(f"the undisturbed study ended with {code}: {SAID.read_text()}")
    return numbers(out)
