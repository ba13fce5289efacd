from __future__ import annotations

import gzip
import io
import re
import tarfile
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.run import main
from bench.store.archive import export, unpack
from bench.store.files import write_bytes, write_json
from bench.store.store import Store
from tests.support.synthetic import PLAN, RISING, runs


def filled(root: Path) -> Store:
    store = Store(root)
    for name in ("pre-a", "fin-a"):
        write_bytes(store.run(name).path / "record.json", b'{"run_id": "x"}')
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


def test_records_alone_hold_no_weights_no_logs_and_no_commands(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    folder, study = store.run("pre-a").path, store.root / "studies" / "s"
    for path in (folder / "encoder.safetensors", folder / "log.txt", study / "command.json"):
        write_bytes(path, b"x")
    write_bytes(folder / "metrics.jsonl", b"{}")
    export(store, [folder, study], tmp_path / "x.tar.gz", records_only=True)
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        names = {m.name for m in archive if m.isfile()}
        assert {m.mtime for m in archive} == {0}
    kept = {"runs/pre-a/record.json", "runs/pre-a/metrics.jsonl", "studies/s/plan.json"}
    assert names == kept | {"index.json"}
    assert sorted(unpack(Store(tmp_path / "b"), tmp_path / "x.tar.gz")[0]) == ["pre-a", "s"]


def test_an_import_overwrites_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    export(store, [f.path for f in store.folders()], tmp_path / "x.tar.gz")
    write_bytes(store.run("fin-a").path / "record.json", b'{"run_id": "mine"}')
    assert unpack(store, tmp_path / "x.tar.gz") == ([], ["fin-a", "pre-a"])
    assert store.run("fin-a").result() == {"run_id": "mine"}


def test_an_import_fills_a_run_that_was_only_registered(tmp_path: Path) -> None:
    store, other = filled(tmp_path / "a"), Store(tmp_path / "b")
    for name in ("pre-a", "fin-a"):
        write_bytes(store.run(name).path / "config.json", b"theirs")
        write_bytes(other.run(name).path / "config.json", b"mine")
    write_bytes(other.run("fin-a").checkpoints / "pretrain" / "step-1.pt", b"begun")
    export(store, [f.path for f in store.folders()], tmp_path / "x.tar.gz")
    assert unpack(other, tmp_path / "x.tar.gz") == (["pre-a"], ["fin-a"])
    assert other.run("pre-a").is_done()
    assert (other.run("pre-a").path / "config.json").read_bytes() == b"mine"
    assert not other.run("fin-a").is_done()


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
    assert not store.root.exists()
    assert not (tmp_path / "evil").exists()


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no archive")
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(Store(tmp_path / "out"), tmp_path / "x")


def test_a_failed_import_leaves_what_others_wrote_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    other = Store(tmp_path / "b")
    prove = Store.check_writable

    def check_writable(store: Store) -> None:
        prove(store)
        write_bytes(store.run("mine").path / "record.json", b"{}")

    monkeypatch.setattr(Store, "check_writable", check_writable)
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(other, tmp_path / "x.tar.gz")
    assert (other.run("mine").path / "record.json").exists()


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    export(store, [f.path for f in store.folders()], tmp_path / "x.tar.gz")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot read archive"):
        unpack(Store(tmp_path / "out"), tmp_path / "x.tar.gz")


@pytest.mark.parametrize("form", ["gz", "plain"])
@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_byte_anywhere_imports_nothing(form: str, place: float, tmp_path: Path) -> None:
    store, path = filled(tmp_path / "a"), tmp_path / "x.tar.gz"
    write_bytes(store.run("fin-a").path / "log.txt", bytes(range(256)) * 40)
    export(store, [f.path for f in store.folders()], path)
    data = bytearray(path.read_bytes() if form == "gz" else gzip.decompress(path.read_bytes()))
    filled_with = (
        [i for i, byte in enumerate(data) if byte] if form == "plain" else range(len(data))
    )
    data[filled_with[int(place * len(filled_with))]] ^= 0x15
    path.write_bytes(data)
    other = Store(tmp_path / "b")
    with pytest.raises(UsageError):
        unpack(other, path)
    assert not other.root.exists()


def bomb(path: Path, name: str = "runs/a/log.txt", size: int = 200 * 2**20) -> Path:
    info = member(name)
    info.size = size
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, Zeros())  # type: ignore[arg-type]
    return path


class Zeros:
    def read(self, size: int) -> bytes:
        return bytes(size)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("runs/a/log.txt", 200 * 2**20, "unpacks to more than"),
        ("runs/" + "a/" * 20 + "log.txt", 1, "too deep"),
        ("runs/" + "a/" * 7 + "log.txt", 1, "too deep"),
        ("runs/" + "a" * 300 + "/log.txt", 1, "too long"),
        ("runs/a/\x1b[2J", 1, "control characters"),
    ],
)
def test_what_no_study_holds_is_refused(name: str, size: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        unpack(Store(tmp_path / "out"), bomb(tmp_path / "x.tar.gz", name, size))
    assert not Store(tmp_path / "out").folders()


def archived_study(folder: Path) -> Path:
    """A finished synthetic study as an archive."""
    store, records = Store(folder / "there"), runs(RISING)
    for record in records:
        write_json(store.run(record.run_id).path / "record.json", asdict(record))
    study = store.root / "studies" / "mine"
    write_json(study / "plan.json", {**PLAN, "ids": [r.run_id for r in records]})
    export(store, [study, *(f.path for f in store.folders())], folder / "mine.tar.gz")
    return folder / "mine.tar.gz"


@pytest.mark.parametrize("command", [["report", "--archive"], ["compare", "mine"]])
def test_an_archive_of_runs_alone_says_so_and_what_to_do(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archived_study(tmp_path)
    store, packed = Store(tmp_path / "there"), tmp_path / "run.tar.gz"
    out = [] if command[0] == "report" else ["--out", str(store.root)]
    for number, holds in ((1, "holds run 'fin-mae"), (2, "holds 2 runs")):
        export(store, [f.path for f in store.folders()][:number], packed)
        assert main([*command, str(packed), *out]) == 2
        said = capsys.readouterr().err
        assert f"archive '{packed}' {holds}" in said
        assert "and no study." in said
        assert f"'import {packed} --out DIR'" in said
        assert said.count("\n") == 1
    assert main(["import", str(packed), "--out", str(tmp_path / "b")]) == 0
    assert main(["report", "--all", "--format", "md", "--out", str(tmp_path / "b")]) == 0


def test_a_report_comes_from_an_archive_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, readme = archived_study(tmp_path), tmp_path / "README.md"
    readme.write_text("above\n<!-- result -->\nold\n<!-- /result -->\nbelow\n")
    words = ["report", "--archive", str(archive), "--readme", str(readme), "--format", "md"]
    assert main(words) == 0
    assert "mae+mto" in capsys.readouterr().out
    above, block, below = re.split(r"<!-- /?result -->\n", readme.read_text())
    assert (above, below) == ("above\n", "below\n")
    assert "| mae+mto | **refuted (p " in block
    (picture,) = re.findall(r'<img src="(mine/figures/[^"]*)"', block)
    assert (tmp_path / picture).exists()
    assert "mae+mto" in (tmp_path / "mine" / "report.md").read_text()
    assert main([*words, "--to", str(tmp_path / "elsewhere")]) == 0
    once, again = (tmp_path / name / "report.md" for name in ("mine", "elsewhere"))
    assert once.read_bytes() == again.read_bytes()


def test_a_result_goes_to_the_place_of_its_own_name(tmp_path: Path) -> None:
    archive, readme = archived_study(tmp_path), tmp_path / "README.md"
    other, own, end = "<!-- result -->\n", "<!-- result mine -->\n", "<!-- /result -->\n"
    text = f"{other}of another\n{end}between\n{own}old\n{end}below\n"
    readme.write_text(text)
    words = ["report", "--archive", str(archive), "--readme", str(readme), "--format", "md,csv"]
    assert main(words) == 0
    lines = readme.read_text()
    readme.write_bytes(text.replace("\n", "\r\n").encode())
    assert main(words) == 0
    assert readme.read_bytes() == lines.replace("\n", "\r\n").encode(), "line ends stay"
    before, _, rest = readme.read_text().partition(own)
    assert before == f"{other}of another\n{end}between\n"
    assert rest.startswith("| method | half of ")
    assert "| mae+mto | **refuted (p " in rest
    assert rest.endswith(f"{end}below\n")
    readme.write_text(own + end)
    assert main(words) == 0, "a file with that place alone"


def test_a_readme_without_a_place_for_the_result_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    assert (
        main(["report", "--archive", str(archived_study(tmp_path)), "--readme", str(readme)]) == 2
    )
    assert "<!-- result -->" in capsys.readouterr().err
    assert readme.read_text() == "nothing here\n"


def test_a_readme_that_lacks_a_closing_mark_loses_nothing(tmp_path: Path) -> None:
    archive, readme = archived_study(tmp_path), tmp_path / "README.md"
    text = "<!-- result mine -->\nold\nprose\n<!-- result other -->\nits\n<!-- /result -->\n"
    readme.write_text(text)
    words = ["report", "--archive", str(archive), "--readme", str(readme), "--format", "md"]
    assert main(words) == 2
    assert readme.read_text() == text
    readme.write_text("<!-- result -->\n<!-- /result -->\n")
    link = tmp_path / "linked.md"
    link.symlink_to(readme)
    words[4] = str(link)
    assert main(words) == 0
    assert link.is_symlink()
    assert "mae+mto" in readme.read_text()


def test_a_readme_may_end_without_a_line_break_and_must_be_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- result -->\n<!-- /result -->")
    words = ["report", "--archive", str(archived_study(tmp_path)), "--readme", str(readme)]
    assert main(words) == 0
    assert "mae" in readme.read_text()
    readme.write_bytes(b"caf\xe9\n<!-- result -->\n<!-- /result -->\n")
    assert main(words) == 2
    assert "is no UTF-8 text" in capsys.readouterr().err
