from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.run import main

Shown = Callable[..., str]


@pytest.fixture
def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Runs a sub-command on the folder of the test, and gives what it prints."""

    def call(*arguments: str, code: int = 0) -> str:
        assert main([*arguments, "--out", str(tmp_path)]) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return call
