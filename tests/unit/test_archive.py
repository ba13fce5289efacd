from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bench.archive import export, unpack
from bench.errors import UsageError
from bench.store import Store, write_bytes


def filled(root: Path) -> Store:
    store = Store(root)
    for name in ("pre-a", "fin-a"):
        write_bytes(store.run(name).path / "record.json", b"{}")
        write_bytes(store.run(name).checkpoints / "pretrain" / "step-1.pt", b"state")
    write_bytes(root / "studies" / "s" / "plan.json", b"{}")
    return store


def test_an_archive_comes_back_elsewhere_without_checkpoints(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    folders = [f.path for f in store.folders()] + [store.root / "studies" / "s"]
    assert export(store, folders, tmp_path / "x.tar.gz") == 3
    other = Store(tmp_path / "b")
    taken, kept = unpack(other, tmp_path / "x.tar.gz")
    assert (sorted(taken), kept) == (["fin-a", "pre-a", "s"], [])
    assert [f.run_id for f in other.folders()] == ["fin-a", "pre-a"]
    assert not list(other.root.rglob("*.pt"))
    assert not list(other.root.glob(".import-*"))


def test_an_import_overwrites_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    export(store, [f.path for f in store.folders()], tmp_path / "x.tar.gz")
    write_bytes(store.run("fin-a").path / "record.json", b'{"mine": 1}')
    assert unpack(store, tmp_path / "x.tar.gz") == ([], ["fin-a", "pre-a"])
    assert store.run("fin-a").result() == {"mine": 1}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("/etc/evil"),
        member("runs/../../evil"),
        member("evil"),
        member("runs/a/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("runs/a/device", tarfile.CHRTYPE),
    ],
    ids=lambda m: m.name,
)
def test_an_archive_that_reaches_outside_is_refused_whole(
    bad: tarfile.TarInfo, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member("runs/good/record.json"), io.BytesIO(b""))
        archive.addfile(bad, io.BytesIO(b""))
    store = Store(tmp_path / "out")
    with pytest.raises(UsageError, match="nothing was imported"):
        unpack(store, path)
    assert not store.folders()
    assert not (tmp_path / "evil").exists()


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no archive")
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(Store(tmp_path / "out"), tmp_path / "x")
