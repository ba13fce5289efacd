from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_cluster import COMMANDS, FAKE, Fake


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Fake commands on PATH, and none of a real cluster."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).symlink_to(FAKE)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    found = Fake(folder)
    found.change()
    return found
