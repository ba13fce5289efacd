"""How files come onto the disk, whole, with the rights they should have, beside their place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from bench.store.archive import export, unpack
from bench.store.files import file_mode, set_aside, write_bytes, write_json
from bench.store.states import FAILED, RUNNING
from bench.store.store import Store


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each file had when the disk was asked to keep it."""
    sizes: list[int] = []
    monkeypatch.setattr("os.fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    return sizes


def test_a_file_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = tmp_path / "f", []
    path.write_bytes(b"old")
    monkeypatch.setattr(
        "os.fsync", lambda handle: found.append((os.fstat(handle).st_size, path.read_bytes()))
    )
    write_bytes(path, b"newer")
    assert found == [(5, b"old")]
    assert path.read_bytes() == b"newer"


def test_only_what_need_not_last_is_not_waited_for(store: Store, synced: list[int]) -> None:
    path, folder = store.root / "f", store.run("r")
    folder.path.mkdir()
    write_bytes(path, b"x", durable=False)
    write_json(path, {}, durable=False)
    folder.set_status(RUNNING)  # a heartbeat
    assert synced == []
    write_bytes(path, b"x")
    write_json(path, {})
    folder.set_status(FAILED)
    assert len(synced) == 3


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_can_be_read_by_those_whom_the_mask_allows(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        file_mode.cache_clear()
        write_bytes(tmp_path / "f", b"")
        export(Store(tmp_path), [], tmp_path / "x.tar.gz")
        (tmp_path / "g").write_bytes(b"")
        assert os.umask(mask) == mask, "it is as it was"
    finally:
        os.umask(before)
        file_mode.cache_clear()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_no_file_comes_from_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files lie beside their targets: elsewhere a rename is no rename."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    store = Store(tmp_path / "a")
    store.check_writable()
    write_bytes(store.run("r").path / "record.json", b"{}")
    export(store, [store.run("r").path], tmp_path / "deep" / "down" / "x.tar.gz")
    assert unpack(Store(tmp_path / "b"), tmp_path / "deep" / "down" / "x.tar.gz") == (["r"], [])


def test_nothing_that_was_set_aside_is_overwritten(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "f").write_text(str(number))
        assert set_aside(tmp_path / "f") == tmp_path / f"f.damaged-{number}"
    assert [p.read_text() for p in sorted(tmp_path.iterdir())] == ["1", "2", "3"]
