"""A study as a notebook does it: one import, four steps, nothing printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import NothingMeasuredError, UsageError
from bench.library import Means, Wish, compute, freeze, outline, plan, read, report
from tests.conftest import TINY

MEANS = Means(launcher="inline", device="cpu", threads=1)


def test_from_wish_to_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = Wish(methods="mae,mae+mto", epochs=["1", "2"], seeds="2", settings=TINY)
    request = plan(wish, tmp_path / "out", MEANS)
    assert len(request.study.cells) == 8
    assert not (tmp_path / "out").exists(), "planning writes nothing"
    ended = compute(request)
    assert {p.state for p in ended} == {"done"}
    findings = read(tmp_path / "out", request.name)
    assert findings.complete
    assert set(findings.accuracy["arm"]) == {"mae", "mae+mto"}
    files = report(findings, tmp_path / "tables")
    assert {"report.md", "accuracy.csv", "report.json"} <= {p.name for p in files}
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_wrong_wishes_and_empty_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method 'maee'"):
        plan(Wish(methods="maee", epochs="1", seeds="1"), tmp_path)
    with pytest.raises(UsageError, match="unknown tracker 'cvs'"):
        plan(Wish(methods="mae", epochs="1", seeds="1"), tmp_path, Means(trackers=["cvs"]))
    with pytest.raises(NothingMeasuredError, match="no studies"):
        read(tmp_path)


def test_a_study_holds_a_cell_with_one_recipe(tmp_path: Path) -> None:
    """Else two runs of one cell would stand in its plan, and none of them count."""

    def frozen(*settings: str) -> list[str]:
        wish = Wish(methods="mae", epochs="1", seeds="1", name="s", settings=[*TINY, *settings])
        request = outline(wish, tmp_path, MEANS)
        freeze(request)
        for task in request.study.tasks():
            request.store.register(task)
        return list((request.folder.plan() or {})["ids"])

    first = frozen()
    with pytest.raises(UsageError, match=r"study 's' has fin-mae-.* with other.* another --name"):
        frozen("pretrain.lr=1e-3")
    assert frozen() == first
    repeated = frozen("finetune.repeat=1")
    assert len(repeated) == 2
    assert len(frozen("model.depth=1")) == 3, "another model is another cell"
    assert frozen()[:2] == repeated, "the first ones stand"


def test_what_of_a_wish_does_not_count_is_told_before_it_is_computed(tmp_path: Path) -> None:
    def told(tasks: str, *settings: str) -> list[str]:
        wish = Wish(methods="mae", epochs="1", seeds="1", name="s", tasks=tasks, settings=settings)
        return freeze(outline(wish, tmp_path, MEANS))

    assert told("finetune,probe", "simmim.mask_ratio=0.5") == [
        "simmim.mask_ratio changes nothing here: no arm is of simmim"
    ]
    (note,) = told("probe")
    assert note.startswith("this study was planned with the tasks finetune, probe, which stand")


def test_the_home_folder_may_be_written_as_a_shell_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wish = Wish(methods="mae", epochs="1", seeds="1", settings=TINY)
    assert outline(wish, "~/runs", MEANS).store.root == tmp_path / "runs"
    with pytest.raises(NothingMeasuredError, match=f"no studies in '{tmp_path}"):
        read("~/runs")
