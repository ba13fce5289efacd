"""Whatever a kill or a disk did to a study's files, the same command ends in the same numbers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.launch.inline import InlineLauncher
from bench.run import main
from bench.store.files import write_json
from bench.store.store import Store
from tests.conftest import TINY
from tests.support.tiny_runs import CLOCKS, MACHINE, Clock

LINE = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--name", "s", "--launcher", "inline"]


def study(out: Path, *more: str) -> int:
    return main([*LINE, "--out", str(out), *TINY, *more])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert study(out) == 0
    return out


@pytest.fixture
def out(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "out"))


def pre(out: Path) -> Path:
    return next(out.glob("runs/pre-*"))


def cell(out: Path) -> Path:
    return next(out.glob("runs/fin-*"))


def numbers(out: Path) -> dict[str, Any]:
    """Records without clocks, and weights as bytes."""
    found: dict[str, Any] = {}
    for folder in (pre(out), cell(out)):
        values = json.loads((folder / "record.json").read_text())
        record = {k: v for k, v in values.items() if k not in CLOCKS | MACHINE}
        weights = {f.name: f.read_bytes() for f in sorted(folder.glob("*.safetensors"))}
        found[folder.name] = (record, weights)
    return found


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def without_cell(out: Path) -> Path:
    shutil.rmtree(cell(out))
    return pre(out)


def overwrite(path: Path, text: str) -> None:
    path.write_text(text)


LOCALLY = {name: ["--launcher", "local"] for name in ("in the future", "encoder lost")}
"""What a launcher with processes of its own could meet in another way."""

STRAY = "checkpoints/pretrain/step-000000009.pt"

NONSENSE = {"state": "dancing", "attempt": "many", "beat": "late", "step": None}


def states_left(out: Path) -> None:
    path = pre(out) / STRAY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"gigabytes")
    (pre(out) / ".encoder.safetensors.ab12cd34").write_bytes(b"half")


def half_deleted(out: Path) -> None:
    folder = without_cell(out)
    for name in ("config.json", "encoder.safetensors", "provenance.json", "metrics.jsonl"):
        (folder / name).unlink()


def in_the_future(out: Path) -> None:
    """A cancellation, a heartbeat and a submission of a year ahead."""
    folder = pre(out)
    (folder / "record.json").unlink()
    far = 4e9
    write_json(folder / "cancelled.json", {"time": far})
    write_json(folder / "status.json", {"state": "running", "stage": "pretrain", "beat": far})
    write_json(folder / "job.json", {"job": "1", "submitted": far})
    (folder / "run.lock").write_text("17 abc elsewhere")


def killed_between_plan_and_settings(out: Path) -> None:
    (out / "studies" / "s" / "resolved.yaml").unlink()
    shutil.rmtree(out / "runs")


def weights_lost(out: Path) -> None:
    for path in without_cell(out).glob("*.safetensors"):
        path.unlink()


Damage = Callable[[Path], Any]

DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "record of a cell lost": (lambda o: (cell(o) / "record.json").unlink(), []),
    "record of a cell emptied": (lambda o: overwrite(cell(o) / "record.json", ""), ["record"]),
    "record of a cell cut": (lambda o: cut(cell(o) / "record.json"), ["record"]),
    "record of a cell is no object": (
        lambda o: overwrite(cell(o) / "record.json", "[]"),
        ["record"],
    ),
    "record of a cell says little": (
        lambda o: overwrite(cell(o) / "record.json", "{}"),
        ["record"],
    ),
    "record of a pre-training lost": (lambda o: (pre(o) / "record.json").unlink(), []),
    "record of a pre-training cut": (lambda o: cut(pre(o) / "record.json"), ["record"]),
    "bits cut": (lambda o: cut(cell(o) / "correct.json"), ["correct", "record"]),
    "encoder lost": (lambda o: (without_cell(o) / "encoder.safetensors").unlink(), []),
    "encoder cut": (lambda o: cut(without_cell(o) / "encoder.safetensors"), ["encoder"]),
    "all weights lost": (weights_lost, ["record"]),
    "half-deleted": (half_deleted, ["record"]),
    "status is nonsense": (
        lambda o: (
            (pre(o) / "record.json").unlink(),
            write_json(pre(o) / "status.json", NONSENSE),
        ),
        ["status"],
    ),
    "status is no text": (lambda o: (cell(o) / "status.json").write_bytes(b"\xff\x00"), ["status"]),
    "configuration cut": (lambda o: cut(cell(o) / "config.json"), ["config"]),
    "kept score cut": (
        lambda o: (without_cell(o), cut(next(pre(o).glob("scores/knn-*")))),
        ["knn"],
    ),
    "command cut": (lambda o: cut(o / "studies" / "s" / "command.json"), ["command"]),
    "between plan and settings": (killed_between_plan_and_settings, []),
    "states left": (states_left, []),
    "in the future": (in_the_future, []),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_same_command_mends(name: str, undisturbed: Path, out: Path) -> None:
    damage, aside = DAMAGES[name]
    damage(out)
    assert study(out, *LOCALLY.get(name, [])) == 0
    assert numbers(out) == numbers(undisturbed)
    assert not list(out.rglob("*.pt"))
    assert not list(out.rglob(".*.safetensors.*"))
    assert (out / "studies" / "s" / "resolved.yaml").exists()
    found = sorted(p.name.partition(".")[0].partition("-")[0] for p in out.rglob("*.damaged-1"))
    assert found == sorted(aside)
    again = sorted(p.stat().st_mtime_ns for p in out.glob("runs/*/record.json"))
    assert study(out) == 0
    assert again == sorted(p.stat().st_mtime_ns for p in out.glob("runs/*/record.json"))


@pytest.mark.parametrize("launcher", ["inline", "local"], ids=["command and runs", "command"])
def test_a_command_whose_clock_jumps_by_days(
    launcher: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of the local launcher keep the true time: another clock than their command's."""
    monkeypatch.setattr(time, "time", time.time)  # put back at the end
    clock = Clock()
    clock()
    assert study(tmp_path, "--launcher", launcher) == 0
    assert numbers(tmp_path) == numbers(undisturbed)
    assert launcher == "local" or clock.looks > 2 * Clock.LOOKS, "it jumped"
    (cell(tmp_path) / "record.json").unlink()
    assert study(tmp_path, "--launcher", launcher) == 0
    assert numbers(tmp_path) == numbers(undisturbed)


def test_what_is_set_aside_keeps_its_bytes_and_is_told(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cell(out) / "record.json"
    for number, text in ((1, "torn"), (2, "again")):
        path.write_text(text)
        assert study(out) == 0
        told = (
            f"'runs/{cell(out).name}/record.json' was set aside as 'record.json.damaged-{number}'"
        )
        assert f"{told}: it is no JSON" in capsys.readouterr().err
    kept = [(path.parent / f"record.json.damaged-{k}").read_text() for k in (1, 2)]
    assert kept == ["torn", "again"]


def test_a_lost_encoder_that_nobody_needs_costs_nothing(out: Path) -> None:
    (pre(out) / "encoder.safetensors").unlink()
    before = (pre(out) / "record.json").stat().st_mtime_ns
    assert study(out) == 0
    assert (pre(out) / "record.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [Path.unlink, cut], ids=["lost", "cut"])
def test_a_lost_encoder_is_taken_from_its_method(
    damage: Callable[[Path], None], out: Path, undisturbed: Path
) -> None:
    """Nothing is trained again, and the file is what it was."""
    folder = without_cell(out)
    damage(folder / "encoder.safetensors")
    before = (folder / "record.json").stat().st_mtime_ns
    assert study(out) == 0
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert numbers(out) == numbers(undisturbed)
    assert "its weights were taken from 'method.safetensors'" in (cell(out) / "log.txt").read_text()


def test_a_dry_run_counts_what_is_to_be_mended_and_touches_nothing(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_lost(out)
    before = sorted(out.rglob("*"))
    assert study(out, "--dry-run") == 0
    assert "2 runs, 0 done" in capsys.readouterr().out
    assert sorted(out.rglob("*")) == before


def test_looking_at_a_damaged_record_says_what_to_do(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(cell(out) / "record.json")
    assert main(["report", "s", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: 'runs/{cell(out).name}/record.json' is damaged")
    assert "command of its study" in said
    assert main(["status", "s", "--out", str(out)]) == 0
    assert "its record is lost or damaged" in capsys.readouterr().out
    assert main(["top", "--once", "--out", str(out)]) == 0


def test_a_damaged_plan_is_refused_with_what_to_delete(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what was fixed before there were results: nothing stands in for it."""
    path = out / "studies" / "s" / "plan.json"
    cut(path)
    before = path.read_bytes()
    assert study(out) == 2
    assert "Restore it, or delete its folder" in capsys.readouterr().err
    assert path.read_bytes() == before


def failing(out: Path) -> int:
    return study(out, "mae.pretrain.lr=1e6", "pretrain.warmup_epochs=0")


def test_a_second_attempt_tells_the_reasons_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (2, 0):
        assert failing(tmp_path) == 3
        said = " ".join(capsys.readouterr().err.split())
        assert f"{count} of 2 runs to compute" in said
        assert "non-finite: the loss diverged" in said
        assert "not finite at step" in said
        assert "1 failed, 1 blocked: read one with" in said
        assert "then add --retry" in said


def test_a_full_disk_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))

    monkeypatch.setattr("bench.store.files.tempfile.mkstemp", full)
    assert study(tmp_path) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No space left on device. Check the disk; the same command goes on" in said


class Removing:
    """Removes something when the first run has ended."""

    def __init__(self, *places: Path) -> None:
        self.places = places

    def __call__(self, launcher: Any, *rest: Any) -> Any:
        def removing(runs: Any) -> None:
            while self.places:
                place, *self.places = self.places  # type: ignore[assignment]
                shutil.rmtree(place)
            observe(runs)

        tasks, observe = rest
        return LAUNCH(launcher, tasks, removing)


LAUNCH = InlineLauncher.launch


@pytest.mark.parametrize("what", ["runs", "studies", "everything"])
def test_a_folder_removed_under_a_study(
    what: str,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line and exit 2 or a failure of the machine; no folder without its configuration."""
    out = tmp_path / "out"
    places = {"runs": [out / "runs"], "studies": [out / "studies"], "everything": [out]}[what]
    removing = Removing(*places)
    monkeypatch.setattr(InlineLauncher, "launch", lambda *a: removing(*a))
    assert study(out) in (2, 3)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "vanished" in said or "is gone" in said
    for folder in out.glob("runs/*"):
        assert (folder / "config.json").exists(), sorted(folder.iterdir())
    assert what == "runs" or not (out / "studies" / "s" / "report.md").exists()
    monkeypatch.undo()
    assert study(out, "--retry") == 0
    assert numbers(out) == numbers(undisturbed)


def test_a_run_whose_folder_is_gone_is_not_written_to(tmp_path: Path) -> None:
    folder = Store(tmp_path).run("pre-x")
    folder.set_status("blocked", message="waits")
    assert not folder.path.exists()
