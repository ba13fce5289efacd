from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import NothingMeasuredError, UsageError
from bench.plan.reading import read_file
from bench.store import studies
from bench.store.files import write_json
from bench.store.store import Store

PLAN = {"ids": ["a", "b"], "target_epochs": None, "margin": 0.1, "alpha": 0.05}
SETTINGS = {"mae": {"seed": 0}}


def test_the_first_plan_stands_and_new_cells_are_added(tmp_path: Path) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    assert folder.plan() is None
    assert folder.freeze(PLAN, SETTINGS) == []
    notes = folder.freeze({**PLAN, "ids": ["b", "c"], "margin": 0.5}, {"mae": {"seed": 1}})
    assert folder.plan() == {**PLAN, "ids": ["a", "b", "c"]}
    assert (folder.path / "resolved.yaml").read_text() == "mae:\n  seed: 0\n"
    assert notes == [
        "this study was planned with margin=0.1, which stands; give another --name to plan one "
        "with 0.5"
    ]


def test_the_settings_of_arms_that_join_are_listed_beside_those_of_the_first(
    tmp_path: Path,
) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    joined = {"mae+mto(recal,spa)": {"seed": 7}, "mae@again": {"own": ["x"]}}
    folder.freeze(PLAN, SETTINGS)
    for _ in range(2):
        folder.freeze({**PLAN, "ids": ["c"]}, {"mae": {"seed": 7}, **joined})
        assert read_file(folder.path / "resolved.yaml") == {**SETTINGS, **joined}


@pytest.mark.parametrize(
    ("asked", "todo"),
    [
        (["probe", "knn"], "to add scores to its cells, 'evaluate s --with knn'; else give"),
        ([], "ask for the same, or give another --name"),
    ],
)
def test_other_tasks_than_were_planned_are_told(
    asked: list[str], todo: str, tmp_path: Path
) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    first = {**PLAN, "endpoint": "finetune_top1", "secondary": ["probe_top1"]}
    assert folder.freeze(first, {}) == folder.freeze(first, {}) == []
    other = {**first, "secondary": [f"{name}_top1" for name in asked]}
    (note,) = folder.freeze(other, {})
    assert note.startswith("this study was planned with the tasks finetune, probe, which stand; ")
    assert todo in note


def test_what_is_wrong_with_cells_that_join_is_kept_with_the_plan(tmp_path: Path) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    folder.freeze({**PLAN, "warnings": ["first"]}, {})
    unequal = "unequal tuning: mae+mto had 99 trials, mae 4"
    folder.freeze({**PLAN, "ids": ["c"], "warnings": ["first", unequal]}, {})
    kept = folder.plan()
    assert kept is not None
    assert kept["warnings"] == ["first", unequal]
    assert kept["ids"] == ["a", "b", "c"]


def test_a_study_is_found_by_name_or_as_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(NothingMeasuredError, match="no studies"):
        studies.find(store)
    for age, name in enumerate(("new", "old")):
        studies.folder_of(store, name).freeze(PLAN, {})
        os.utime(studies.folder_of(store, name).path / "plan.json", (1e9 - age, 1e9 - age))
    assert studies.find(store).name == "new"
    assert studies.find(store, "old").path == tmp_path / "studies" / "old"
    with pytest.raises(UsageError, match=r"unknown study 'odl'. Did you mean 'old'\?"):
        studies.find(store, "odl")


def test_a_study_says_how_it_was_started(tmp_path: Path) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    with pytest.raises(UsageError, match="does not say how it was started"):
        folder.arguments()
    folder.note_arguments(["--methods", "mae"])
    assert folder.arguments() == ["--methods", "mae"]
    assert folder.started_in() == Path.cwd()
    for kept in ({}, {"folder": str(tmp_path / "gone")}):  # of an earlier version; moved
        write_json(folder.path / "command.json", {"arguments": [], **kept})
        assert folder.started_in() == Path()


def test_a_command_that_cannot_be_read_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    folder.note_arguments(["--methods", "mae"])
    folder.note_arguments(["--seeds", "2"])
    assert [p.name for p in folder.path.iterdir()] == ["command.json"]
    (folder.path / "command.json").write_text("torn")
    folder.note_arguments(["--seeds", "3"])
    assert folder.arguments() == ["--seeds", "3"]
    assert (folder.path / "command.json.damaged-1").read_text() == "torn"


def test_the_same_plan_is_not_written_twice(tmp_path: Path) -> None:
    """Its time is when the study was planned, and says which one is the newest."""
    folder = studies.folder_of(Store(tmp_path), "s")
    folder.freeze(PLAN, {})
    os.utime(folder.path / "plan.json", (1e9, 1e9))
    assert folder.freeze({**PLAN, "ids": ["b"]}, {}) == []
    assert (folder.path / "plan.json").stat().st_mtime == 1e9


def test_settings_that_were_lost_are_written_anew(tmp_path: Path) -> None:
    folder = studies.folder_of(Store(tmp_path), "s")
    folder.freeze(PLAN, SETTINGS)
    (folder.path / "resolved.yaml").unlink()
    folder.freeze(PLAN, SETTINGS)
    assert (folder.path / "resolved.yaml").read_text() == "mae:\n  seed: 0\n"


def test_the_newest_study_with_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, name in enumerate("zyx"):  # x is the oldest
        folder = studies.folder_of(store, name)
        folder.freeze({**PLAN, "ids": [f"{name}1", f"{name}2"]}, {})
        os.utime(folder.path / "plan.json", (1e9 - age, 1e9 - age))
    with pytest.raises(NothingMeasuredError, match="has a result yet"):
        studies.newest_with_results(store)
    for name in "xy":
        write_json(store.run(f"{name}2").path / "record.json", {"run_id": f"{name}2"})
        assert studies.newest_with_results(store).name == name
