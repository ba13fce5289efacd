"""What an archive holds, what of one is believed, and where its limits lie."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UsageError
from bench.store import archive
from bench.store.archive import export, unpack
from bench.store.files import is_temporary, write_bytes
from bench.store.store import Store

KEPT = {
    "runs/r/record.json": b"{}",
    "runs/r/encoder.safetensors": b"weights",
    "runs/r/log.txt": b"log",
    "runs/r/scores/probe-k.json": b"{}",
    "runs/r/scores/record.json": b"no record of a run",
}
LEFT_OUT = ("runs/r/checkpoints/a.pt", "runs/r/run.lock")


@pytest.fixture
def run(store: Store) -> Path:
    for name, data in KEPT.items():
        write_bytes(store.root / name, data)
    for name in LEFT_OUT:
        write_bytes(store.root / name, b"x")
    (store.root / "runs/r/empty").mkdir()
    (store.root / "runs/r/link").symlink_to("/etc/passwd")
    return store.root / "runs" / "r"


def packed(path: Path, *members: tuple[str, bytes | None]) -> Path:
    """An archive of files, and folders where there are no bytes, made by other means."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as target:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            target.addfile(info, io.BytesIO(data or b""))
    return path


def members(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as source:
        return [(m, file.read() if (file := source.extractfile(m)) else b"") for m in source]


def repacked(path: Path, place: Path, names: list[str]) -> Path:
    """The files of these names, in this order."""
    found = {m.name: data for m, data in members(path)}
    return packed(place, *((name, found[name]) for name in names))


def test_all_of_a_run_but_its_states_comes_back(store: Store, run: Path, tmp_path: Path) -> None:
    export(store, [run], tmp_path / "x.tar.gz")
    found = members(tmp_path / "x.tar.gz")
    assert {(m.uid, m.gid, m.uname, m.gname) for m, _ in found} == {(0, 0, "", "")}
    other = Store(tmp_path / "b")
    unpack(other, tmp_path / "x.tar.gz")
    there = {p for p in other.root.rglob("*") if p.is_file()}
    assert {p.relative_to(other.root).as_posix(): p.read_bytes() for p in there} == KEPT
    assert (other.root / "runs/r/empty").is_dir()


def test_records_are_a_runs_own_files(store: Store, run: Path, tmp_path: Path) -> None:
    export(store, [run], tmp_path / "x.tar.gz", records_only=True)
    names = [m.name for m, _ in members(tmp_path / "x.tar.gz")]
    assert names == ["runs/r", "runs/r/record.json", "index.json"]


def test_the_index_names_size_and_sum_of_each_file(store: Store, run: Path, tmp_path: Path) -> None:
    export(store, [run], tmp_path / "x.tar.gz", records_only=True)
    last, data = members(tmp_path / "x.tar.gz")[-1]
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    files = {"runs/r/record.json": {"size": 2, "sha256": empty}}
    assert last.name == "index.json"
    assert json.loads(data) == {"schema": 1, "files": files}


def test_an_archive_inside_the_study_packs_neither_itself_nor_halves(
    store: Store, run: Path, tmp_path: Path
) -> None:
    """Nor what another command is writing, nor the archive that was there before."""
    (run / ".status.json.a1_b2c3d").write_bytes(b"half")
    (run / ".hidden").write_bytes(b"kept")
    for _ in range(2):
        export(store, [run], run / "x.tar.gz")
        names = {m.name for m, _ in members(run / "x.tar.gz") if m.isfile()}
        assert names == {*KEPT, "runs/r/.hidden", "index.json"}
    unpack(Store(tmp_path / "b"), run / "x.tar.gz")


def test_what_is_being_written_has_a_name_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("bench.store.files.os.replace", lambda half, _: seen.append(Path(half)))
    write_bytes(tmp_path / "status.json", b"x")
    export(Store(tmp_path), [], tmp_path / "x.tar.gz")
    assert [path.parent for path in seen] == [tmp_path, tmp_path]
    assert all(is_temporary(path.name) for path in seen)
    real = ("status.json", ".index.json", ".drawn.json", "a.12345678", ".12345678", ".a.1234567")
    assert not any(map(is_temporary, real))


def test_a_run_that_is_being_computed_can_be_packed(
    store: Store, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its half-written status and its states come and go, its status is replaced in between."""
    half, state = run / ".status.json.a1b2c3d4", run / "checkpoints" / "a.pt"
    half.write_bytes(b"half")
    write_bytes(run / "status.json", b"{}")
    look = tarfile.TarFile.gettarinfo

    def gone(archive: tarfile.TarFile, *given: Any) -> tarfile.TarInfo:
        for path in (half, state):
            path.unlink(missing_ok=True)
        found = look(archive, *given)
        write_bytes(run / "status.json", b'{"state": "running"}')
        return found

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", gone)
    write_bytes(run / "status.json", b"{}")
    export(store, [run], tmp_path / "x.tar.gz")
    other = Store(tmp_path / "b")
    unpack(other, tmp_path / "x.tar.gz")
    assert (other.root / "runs/r/status.json").read_bytes() == b'{"state": "running"}'


@pytest.mark.parametrize("gone", [False, True], ids=["full", "its temporary file is gone"])
def test_an_export_that_fails_leaves_what_was_there(
    gone: bool, store: Store, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "to").mkdir()
    target = tmp_path / "to" / "x.tar.gz"
    target.write_bytes(b"old")

    def full(temporary: str, _: Path) -> None:
        if gone:
            os.unlink(temporary)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.store.archive.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        export(store, [run], target)
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("place", [0, 1, 99], ids=["first", "second", "last"])
def test_the_index_counts_wherever_it_lies(
    place: int, store: Store, run: Path, tmp_path: Path
) -> None:
    export(store, [run], tmp_path / "x.tar.gz")
    names = list(KEPT)
    names.insert(place, "index.json")
    assert unpack(
        Store(tmp_path / "b"), repacked(tmp_path / "x.tar.gz", tmp_path / "y.tar.gz", names)
    ) == (["r"], [])
    names.remove("runs/r/log.txt")
    lacking = repacked(tmp_path / "x.tar.gz", tmp_path / "z.tar.gz", names)
    with pytest.raises(UsageError, match="1 of 5 files are missing or damaged, first 'runs/r/log"):
        unpack(Store(tmp_path / "c"), lacking)


def test_files_that_the_index_does_not_name_are_told(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", ("runs/r/a", b"x"), ("index.json", b'{"files": {}}'))
    with pytest.raises(UsageError, match="1 of 0 files are missing or damaged, first 'runs/r/a'"):
        unpack(Store(tmp_path / "b"), path)


@pytest.mark.parametrize("index", [b"[]", b"{}", b"{", b'{"files": []}'])
def test_a_damaged_index_is_told(index: bytes, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", ("runs/r/a", b"x"), ("index.json", index))
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(Store(tmp_path / "b"), path)


def test_an_older_archive_has_no_index(tmp_path: Path) -> None:
    """And its folders may come in any order, twice, or not at all."""
    folders = ("runs/a/b/c", "runs/a", "runs/a/b", "runs/a")
    files = (("runs/a/b/f", b"1"), ("runs/a/g", b"2"), ("studies/s/plan.json", b"{}"))
    path = packed(tmp_path / "x.tar.gz", *((name, None) for name in folders), *files)
    store = Store(tmp_path / "b")
    assert unpack(store, path) == (["a", "s"], [])
    assert {name: (store.root / name).read_bytes() for name, _ in files} == dict(files)


def test_what_is_there_stays_and_the_rest_is_taken(tmp_path: Path) -> None:
    names = [f"{part}/{name}/f" for part in ("runs", "studies") for name in "abc"]
    path = packed(tmp_path / "x.tar.gz", *((name, b"theirs") for name in names))
    store = Store(tmp_path / "b")
    write_bytes(store.root / "runs/a/f", b"mine")
    write_bytes(store.root / "studies/b/f", b"mine")
    assert unpack(store, path) == (["b", "c", "a", "c"], ["a", "b"])
    found = [(store.root / name).read_bytes() for name in names]
    assert found == [b"mine", b"theirs", b"theirs", b"theirs", b"mine", b"theirs"]


@pytest.mark.parametrize("name", ["runs", "runs/a/../../evil", "runs/a/\udcff"])
def test_a_refused_archive_changes_nothing_that_is_there(name: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", ("runs/good/f", b"x"), (name, b"x"))
    store = Store(tmp_path / "b")
    write_bytes(store.root / "runs/mine/f", b"mine")
    with pytest.raises(UsageError, match="archive refused: its member"):
        unpack(store, path)
    assert [p.name for p in store.root.rglob("*")] == ["runs", "mine", "f"]


def test_what_is_no_file_is_no_archive(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="does not exist, or is no file"):
            unpack(Store(tmp_path / "b"), path)
    assert not (tmp_path / "b").exists()


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", ("runs/a/f", b"1"), ("runs/a/f", b"2"))
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(Store(tmp_path / "b"), path)


def test_damage_in_the_last_head_is_found(tmp_path: Path) -> None:
    """A head that cannot be read looks like an end to tarfile."""
    path = packed(tmp_path / "x.tar", ("runs/a/f", b""), ("runs/a/g", b""))
    data = bytearray(path.read_bytes())
    data[512] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged in the middle"):
        unpack(Store(tmp_path / "b"), path)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("runs/" + "a/" * 6 + "f", True),
        ("runs/" + "a/" * 7 + "f", False),
        ("runs/r/" + "a" * 255, True),
        ("runs/r/" + "a" * 256, False),
    ],
)
def test_how_deep_and_long_names_may_be(name: str, taken: bool, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", (name, b"x"))
    if taken:
        unpack(Store(tmp_path / "b"), path)
        assert (tmp_path / "b" / name).read_bytes() == b"x"
    else:
        with pytest.raises(UsageError, match="too deep or is too long"):
            unpack(Store(tmp_path / "b"), path)


def test_limits_of_size_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(f"runs/a/{n}", bytes(20_000)) for n in range(3)]
    path = packed(tmp_path / "x.tar.gz", *files)
    unpack(Store(tmp_path / "free"), path)  # much smaller packed, and yet small
    monkeypatch.setattr(archive, "MOST_EXPANSION", 0)
    monkeypatch.setattr(archive, "SMALL", 60_000)
    unpack(Store(tmp_path / "most"), path)
    monkeypatch.setattr(archive, "SMALL", 59_999)
    with pytest.raises(UsageError, match="unpacks to more than"):
        unpack(Store(tmp_path / "more"), path)
    monkeypatch.setattr(archive, "MOST_EXPANSION", 60_000 // path.stat().st_size + 1)
    monkeypatch.setattr(archive, "SMALL", 0)
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    unpack(Store(tmp_path / "files"), path)
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(UsageError, match="or 1 files"):
        unpack(Store(tmp_path / "many"), path)
