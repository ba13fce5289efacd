"""A damaged encoder stops the runs that would use it, and the advice mends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.run import main
from tests.conftest import TINY


def test_a_flipped_byte_fails_the_cell_and_the_advice_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--launcher", "inline"]
    line += ["--out", str(tmp_path), *TINY]
    assert main(line) == 0
    first, cell = next(tmp_path.glob("runs/pre-*")), next(tmp_path.glob("runs/fin-*"))
    scores = json.loads((cell / "record.json").read_text())["scores"]
    path = first / "encoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    shutil.rmtree(cell)
    assert main(line) != 0
    status = json.loads((cell / "status.json").read_text())
    assert (status["state"], status["failure"]) == ("failed", "node")
    assert str(path) in (cell / "log.txt").read_text() + json.dumps(status)
    aside = first / "encoder.safetensors.damaged-1"
    assert aside.read_bytes() == bytes(data)
    assert main([*line, "--retry"]) == 0
    assert json.loads((cell / "record.json").read_text())["scores"] == scores
    assert aside.exists()
