"""Damaged weights reach no score: whole ones stand in for them, or the advice mends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.run import main
from tests.conftest import TINY


def flip(path: Path) -> bytes:
    """Changes the last byte, which the file's head does not tell; what it holds now."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("methods", ["mae", "bootmae+mto"])
def test_a_flipped_byte_is_mended_from_the_method_or_fails_the_cell_with_advice(
    methods: str, tmp_path: Path
) -> None:
    line = ["--methods", methods, "--epochs", "1", "--seeds", "1", "--launcher", "inline"]
    line += ["--out", str(tmp_path), *TINY]
    assert main(line) == 0
    first, cell = next(tmp_path.glob("runs/pre-*")), next(tmp_path.glob("runs/fin-*"))
    scores = json.loads((cell / "record.json").read_text())["scores"]
    path = first / "encoder.safetensors"
    whole, flipped = path.read_bytes(), flip(path)
    shutil.rmtree(cell)
    assert main(line) == 0, "its method has the weights"
    assert path.read_bytes() == whole
    assert (first / "encoder.safetensors.damaged-1").read_bytes() == flipped

    flip(path)
    flip(first / "method.safetensors")
    shutil.rmtree(cell)
    assert main(line) != 0
    status = json.loads((cell / "status.json").read_text())
    assert (status["state"], status["failure"]) == ("failed", "node")
    assert str(path) in (cell / "log.txt").read_text() + json.dumps(status)
    asides = [first / f"encoder.safetensors.damaged-{k}" for k in (1, 2)]
    assert all(aside.read_bytes() == flipped for aside in asides)
    assert main([*line, "--retry"]) == 0
    assert path.read_bytes() == whole
    assert json.loads((cell / "record.json").read_text())["scores"] == scores
