"""``evaluate``: scores of further tasks for cells that are done; nothing else of them moves."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from bench.commands.table import COMMANDS
from bench.machine import provenance
from bench.run import main
from bench.store.store import Store
from tests.conftest import TINY

SMALL = [s for s in TINY if not s.startswith(("finetune", "probe"))]
LINE = ["--methods", "mae,mae+null", "--epochs", "1", "--seeds", "1", "--name", "s"]
WITH = ["--with", "ridge_all,attentive", "attentive.epochs=2"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two cells, scored by k-NN alone."""
    out = tmp_path_factory.mktemp("done") / "out"
    line = [*LINE, "--tasks", "knn", "--launcher", "inline", "--out", str(out), *SMALL]
    assert main(line) == 0
    return out


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "out"))


def files(out: Path, pattern: str) -> dict[str, Any]:
    found = {p.relative_to(out).as_posix(): p for p in sorted(out.glob(pattern)) if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(out.glob("runs/fin-*/record.json"))]


def test_scores_are_added_and_reach_tables_and_gates(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, kept = records(out), files(out, "runs/**/*")
    assert main(["evaluate", "--out", str(out), *WITH]) == 0
    printed = capsys.readouterr().out
    assert "ridge, all labels" in printed
    assert "attentive probe" in printed
    ends = {"knn_top1", "ridge_all_top1", "attentive_top1"}
    for old, new in zip(before, records(out), strict=True):
        assert set(new["scores"]) == ends
        assert set(new["added"]) == ends - {"knn_top1"}
        assert new["seconds"].keys() == {"attentive"}
        rest = {"scores", "seconds", "added"}
        assert {k: v for k, v in new.items() if k not in rest} == {
            k: v for k, v in old.items() if k not in rest
        }
        assert new["scores"]["knn_top1"] == old["scores"]["knn_top1"]
    changed = {n for n, data in files(out, "runs/**/*").items() if kept.get(n) != data}
    assert {name.rpartition("/")[2].partition("-")[0] for name in changed} == {
        *("record.json", "correct.json", "ridge_all", "attentive", "run.lock")
    }
    assert main(["report", "--out", str(out), "--format", "json", "md"]) == 0
    report = json.loads((out / "studies" / "s" / "report.json").read_text())
    assert {row["endpoint"] for row in report["accuracy"]} == ends
    assert "endpoint not in the plan: attentive_top1, ridge_all_top1" in " ".join(
        report["deviations"]
    )
    assert "| attentive probe top-1 |" in (out / "studies" / "s" / "report.md").read_text()
    gate = "accuracy(mae, epochs=1, endpoint=ridge_all_top1)>=0"
    assert main(["report", "--out", str(out), "--format", "md", "--assert", gate]) in (0, 4)
    assert "ridge_all_top1" in capsys.readouterr().err


def test_a_score_that_is_there_stays(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ["fin-mae-", "--out", str(out), "--with", "ridge_all"]
    assert main(["evaluate", *cells]) == 0
    (other, first), kept = records(out), files(out, "runs/*/record.json")
    assert set(first["added"]) == {"ridge_all_top1"}
    assert not other["added"], "the other cell was not named"
    assert main(["evaluate", *cells, "ridge_all.penalty=9"]) == 0
    assert files(out, "runs/*/record.json") == kept
    assert main(["evaluate", "s", *cells[1:], "ridge_all.penalty=9"]) == 0
    main(["report", "--out", str(out), "--format", "md"])
    assert (
        "ridge_all_top1 was added with 2 recipes"
        in (out / "studies" / "s" / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["--with", "rigde_all"], 2, "Did you mean 'ridge_all'"),
        (["fin-nothing", "--with", "ridge_all"], 2, "unknown cell or study 'fin-nothing'"),
        (["pre-", "--with", "ridge_all"], 3, "none of these is a finished cell"),
        (["--with", "ridge_all", "knn.k=3"], 2, "'knn' is none of the tasks to add"),
        (["--with", "attentive", "attentive.heads=7"], 2, "do not divide"),
    ],
)
def test_what_cannot_be_added_is_told(
    out: Path, line: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = files(out, "runs/*/record.json")
    assert main(["evaluate", "--out", str(out), *line]) == code
    assert said in capsys.readouterr().err
    assert files(out, "runs/*/record.json") == kept


def test_a_cell_that_is_being_computed_is_left_alone(out: Path) -> None:
    (cell, _) = sorted(out.glob("runs/fin-*"))
    with Store(out).run(cell.name).lock():
        assert main(["evaluate", cell.name, "--out", str(out), "--with", "ridge_all"]) == 1


def test_one_cell_that_cannot_be_scored_keeps_none_of_the_others_from_it(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process has the one, or its weights are gone: the rest is scored, and printed."""
    first, second = sorted(out.glob("runs/fin-*"))
    with Store(out).run(first.name).lock():
        assert main(["evaluate", "--out", str(out), "--with", "ridge_all"]) == 1
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[2:]] == [second.name]
    assert said.err.splitlines()[-1].startswith(f"failed: {first.name}: ")
    assert ["ridge_all_top1" in record["scores"] for record in records(out)] == [False, True]


def test_lost_weights_come_back_as_the_error_says(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell, *_) = sorted(out.glob("runs/fin-mae-*"))
    (parent,) = out.glob("runs/pre-mae-*")
    for lost in parent.glob("*.safetensors"):
        lost.unlink()
    line = ["evaluate", cell.name, "--out", str(out), "--with", "ridge_all"]
    assert main(line) == 1
    assert f"the weights of {parent.name} are not here" in capsys.readouterr().err
    for folder in (parent, cell):
        (folder / "record.json").unlink()
    again = [*LINE, "--tasks", "knn", "--launcher", "inline", "--out", str(out), *SMALL]
    assert main(again) == 0
    assert main(line) == 0


def test_it_is_listed() -> None:
    assert "finished cells" in COMMANDS["evaluate"].help


def test_a_damaged_file_of_flags_is_told_and_left(out: Path) -> None:
    (cell, _) = sorted(out.glob("runs/fin-*"))
    flags = cell / "correct.json"
    flags.write_bytes(flags.read_bytes()[:-20])
    kept = files(out, "runs/**/*")
    assert main(["evaluate", cell.name, "--out", str(out), "--with", "ridge_all"]) == 1
    assert {n: d for n, d in files(out, "runs/**/*").items() if not n.endswith(".lock")} == {
        n: d for n, d in kept.items() if not n.endswith(".lock")
    }


def test_other_code_and_another_recipe_are_told(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = ["evaluate", "fin-mae-", "--out", str(out), "--with", "ridge_all"]
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "f" * 40, "dirty": True})
    assert main(line) == 0
    (_, record) = records(out)
    assert record["notes"][-1] == "ridge_all added by other code: ffffffffff"
    assert record["dirty"]
    assert main(line) == 0
    assert not caplog.records
    assert main([*line, "ridge_all.penalty=9"]) == 0
    assert "its score of 'ridge_all' is of another recipe, and stays" in caplog.text
    assert main([*line[:-1], "knn", "knn.k=3"]) == 0
    assert "its score of 'knn' is of another recipe" in caplog.text


def test_a_signal_ends_it_between_cells(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(*_: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr("bench.work.adding.evaluate", signalled)
    kept = files(out, "runs/*/record.json")
    assert main(["evaluate", "--out", str(out), "--with", "ridge_all"]) == 130
    assert files(out, "runs/*/record.json") == kept
