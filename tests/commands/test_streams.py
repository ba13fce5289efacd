"""Output whose reader has gone, as with ``| head``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from bench.commands.parser import guarded
from bench.run import main
from tests.support.synthetic import RISING, runs, stored


@pytest.fixture
def unread() -> Iterator[IO[str]]:
    """A stream into a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w") as stream:
        yield stream


@pytest.mark.parametrize(("gate", "code"), [("accuracy(mae)>=0", 0), ("accuracy(mae)>=101", 4)])
def test_a_gate_is_judged_though_nobody_reads_the_table(
    gate: str, code: int, tmp_path: Path, unread: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, "mine", runs(RISING))
    monkeypatch.setattr(sys, "stdout", unread)
    words = ["report", "mine", "--out", str(tmp_path), "--format", "md", "--allow-pilot"]
    assert main([*words, "--assert", gate]) == code
    assert (tmp_path / "studies" / "mine" / "report.md").exists()


def test_progress_that_nobody_reads_stops_nothing(
    unread: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", unread)
    told = []

    def action() -> int:
        for number in range(3):
            print(number, file=sys.stderr, flush=True)
            told.append(number)
        return 3

    assert guarded(action) == 3
    assert told == [0, 1, 2]
    assert sys.stderr is unread


def test_a_listing_that_nobody_reads_on_ends(
    unread: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    assert main(["ls", "published"]) == 0


def test_an_encoding_that_lacks_a_character_shows_another(tmp_path: Path) -> None:
    stored(tmp_path, "mine", runs(RISING))
    words = [sys.executable, "-m", "bench.run", "report", "mine", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*words, "--format", "md"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mae+mto" in done.stdout
    assert "?" in done.stdout
