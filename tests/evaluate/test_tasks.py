"""Evaluation tasks: what a study names enters its ids, is computed once, and reaches the tables.

A throw-away task from an outside package goes the whole way by its entry point alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.errors import UsageError
from bench.evaluate.evaluation import evaluate
from bench.plan import layers, resolve, typed
from bench.plan.identity import cell_id, pretrain_id, recipe_digest, score_key
from bench.plan.study import plain_config
from bench.report import gates
from bench.run import main
from bench.store.folder import RunFolder
from bench.store.scores import KeptScores
from tests.conftest import TINY
from tests.evaluate import labelled, outside

CODE = {"commit": "abc", "dirty": False}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An outside package that brings the task ``centroid``."""
    point = EntryPoint("centroid", "tests.evaluate.outside:centroid", "mto_bench.evaluations")

    def entry_points(group: str) -> list[EntryPoint]:
        return [point] if group == "mto_bench.evaluations" else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._points.cache_clear()
    yield
    registry._points.cache_clear()


def resolved(*overrides: str, tasks: Any = None) -> Any:
    more = [{"tasks": tasks}] if tasks is not None else []
    found = (*layers.load_preset("digits"), typed.parse_overrides([*TINY, *overrides]), *more)
    return resolve.Resolver(tuple(found)).resolve(typed.parse_arm("mae"), 2, 0)


# --- identity -----------------------------------------------------------------------------------


def test_a_study_that_names_the_standing_tasks_has_the_ids_of_one_that_names_none() -> None:
    named = resolved(tasks=["knn", "probe", "finetune"])
    assert named == resolved()
    assert [name for name, _ in named.tasks] == ["finetune", "probe", "knn"]


def test_an_installed_task_leaves_the_ids_of_studies_that_do_not_name_it(installed: None) -> None:
    registry._points.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: [])
        before = resolved()
    registry._points.cache_clear()
    assert cell_id(resolved()) == cell_id(before)
    assert recipe_digest(resolved()) == recipe_digest(before)


def test_a_task_that_is_named_enters_the_id_and_the_recipe(installed: None) -> None:
    every = ["finetune", "probe", "knn", "centroid"]
    plain, more = resolved(), resolved(tasks=every)
    other = resolved("centroid.shrink=0.5", tasks=every)
    few = [resolved(tasks=[name]) for name in every]
    configs = [plain, more, other, *few]
    assert len({cell_id(c) for c in configs}) == len(configs)
    assert len({recipe_digest(c) for c in configs}) == len(configs)
    assert len({pretrain_id(c) for c in configs}) == 1


def test_two_tasks_of_equal_recipes_are_two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of tasks beside the standing ones carry their name."""
    knn = registry.TASKS.rows["knn"]
    for name in ("knn_one", "knn_two"):
        monkeypatch.setitem(registry.TASKS.rows, name, replace(knn, standing=False))
    ids = {cell_id(resolved(tasks=[name])) for name in ("knn", "knn_one", "knn_two")}
    assert len(ids) == 3


def test_the_key_of_a_score_is_its_recipe_labels_and_task() -> None:
    config = resolved()
    changed = replace(config.task("knn"), k=7)
    other = config.with_task("knn", changed)
    assert score_key(config, "knn") != score_key(other, "knn")
    for name in ("finetune", "probe"):
        assert score_key(config, name) == score_key(other, name)
    few = replace(config, data=replace(config.data, labels=30))
    assert all(score_key(config, name) != score_key(few, name) for name, _ in config.tasks)


def test_a_stored_configuration_comes_back_with_its_tasks(installed: None) -> None:
    for tasks in (None, ["knn"], ["probe", "centroid"]):
        config = resolved(tasks=tasks)
        stored = json.loads(json.dumps(plain_config(config)))
        assert "tasks" not in stored
        assert resolve.run_from_plain(stored) == config


@pytest.mark.parametrize(
    ("tasks", "said"),
    [(["knnn"], "unknown evaluation task 'knnn'. Did you mean 'knn'"), ([], "no evaluation tasks")],
)
def test_unknown_and_missing_tasks_are_named(tasks: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolved(tasks=tasks)


def test_a_stored_task_that_is_not_installed_is_named(installed: None) -> None:
    stored = plain_config(resolved(tasks=["probe", "centroid"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: [])
        registry._points.cache_clear()
        with pytest.raises(UsageError, match="unknown evaluation task 'centroid'"):
            resolve.run_from_plain(stored)
    registry._points.cache_clear()


# --- scores kept --------------------------------------------------------------------------------


def test_a_changed_task_is_computed_alone(tmp_path: Path) -> None:
    """Fine-tuning and probe are read where only the k of k-NN changed."""
    kept = KeptScores(RunFolder(tmp_path / "pre"))
    kept.folder.path.mkdir()
    first = labelled.encoder(tmp_path / "a", labelled.plain())
    once = evaluate(first, kept, CODE)
    assert {name: score.top1 for name, score in once.items()} == dict.fromkeys(once, 100.0)
    other = labelled.config(knn={"k": 3})
    second = labelled.encoder(tmp_path / "b", labelled.plain(), other)
    again = evaluate(second, kept, {**CODE, "commit": "later"})
    assert second.method.made == [], "no classifier was built"  # type: ignore[attr-defined]
    assert [again[name].commit for name in ("finetune", "probe", "knn")] == ["abc", "abc", "later"]
    assert again["finetune"] == once["finetune"]
    assert len(list((tmp_path / "pre" / "scores").iterdir())) == 4
    relabelled = labelled.config(data={"labels": 20})
    third = labelled.encoder(tmp_path / "c", labelled.plain(), relabelled)
    assert {s.commit for s in evaluate(third, kept, {**CODE, "commit": "new"}).values()} == {"new"}


def test_a_torn_score_is_computed_anew(tmp_path: Path) -> None:
    kept = KeptScores(RunFolder(tmp_path / "pre"))
    kept.folder.path.mkdir()
    settings = labelled.config()
    evaluate(labelled.encoder(tmp_path / "a", labelled.plain()), kept, CODE)
    path = tmp_path / "pre" / "scores" / f"knn-{score_key(settings, 'knn')}.json"
    path.write_text('{"top1": 12')
    again = evaluate(labelled.encoder(tmp_path / "b", labelled.plain()), kept, CODE)
    assert again["knn"].top1 == 100.0


def test_nothing_is_written_where_the_encoders_run_is_gone(tmp_path: Path) -> None:
    kept = KeptScores(RunFolder(tmp_path / "gone"))
    evaluate(labelled.encoder(tmp_path / "a", labelled.plain()), kept, CODE)
    assert not kept.folder.path.exists()


def test_a_study_with_another_k_reads_what_fine_tuning_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--launcher", "inline", *TINY]
    for more in ([], ["knn.k=3"]):
        assert main([*line, "--out", str(tmp_path), *more]) == 0
    (pre,) = tmp_path.glob("runs/pre-*")
    kept = sorted(path.name.partition("-")[0] for path in pre.glob("scores/*"))
    assert kept == ["finetune", "knn", "knn", "probe"]
    one, two = (json.loads(p.read_text()) for p in tmp_path.glob("runs/fin-*/record.json"))
    assert one["seconds"] == two["seconds"], "to the last digit: it was not run again"
    assert one["scores"]["finetune_top1"] == two["scores"]["finetune_top1"]
    assert one["recipe"] != two["recipe"]


# --- from outside to the tables -----------------------------------------------------------------


def test_an_outside_task_needs_one_file_and_one_row(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--methods", "mae,mae+mto", "--epochs", "1,2", "--seeds", "2", "--launcher", "inline"]
    small = [setting for setting in TINY if not setting.startswith(("finetune", "probe"))]
    line += ["--out", str(tmp_path), *small, "centroid.shrink=0.25", "--name", "s"]
    assert main([*line, "--tasks", "knn,centroid"]) == 0
    table = (tmp_path / "studies" / "s" / "accuracy.csv").read_text()
    assert {line.split(",")[5] for line in table.splitlines()[1:]} == {"knn_top1", "centroid_top1"}
    report = (tmp_path / "studies" / "s" / "report.md").read_text().splitlines()
    head = next(row for row in report if row.startswith("| method | epochs |"))
    assert "k-NN top-1" in head
    assert "nearest mean top-1" in head, "its label"
    assert "fine-tune" not in head
    plan = json.loads((tmp_path / "studies" / "s" / "plan.json").read_text())
    assert (plan["endpoint"], plan["secondary"]) == ("knn_top1", ["centroid_top1"])
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/fin-*/record.json")]
    assert {tuple(sorted(r["scores"])) for r in records} == {("centroid_top1", "knn_top1")}
    assert {r["seconds"]["centroid"] for r in records} == {0.125}
    gate = "accuracy(mae, epochs=2, endpoint=centroid_top1)>=0"
    assert gates.parse(gate).options == {"endpoint": "centroid_top1", "epochs": "2"}
    assert main(line) == 2
    assert "Add it: --tasks finetune,probe,knn,centroid" in capsys.readouterr().err


def test_the_outside_task_is_listed_and_its_settings_are_checked(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "evaluations"]) == 0
    assert "centroid" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"Did you mean 'centroid\.shrink'"):
        resolved("centroid.shrnk=1", tasks=["centroid"])


def test_its_score_is_right(installed: None, tmp_path: Path) -> None:
    settings = replace(labelled.config(), tasks=(("centroid", outside.CentroidConfig()),))
    assert labelled.scores(tmp_path, labelled.plain(), settings) == {"centroid": 100.0}


def test_a_gate_on_an_unknown_endpoint_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="Did you mean 'probe_top1'"):
        gates.parse("rho(mae+mto, endpoint=prob_top1)>=1")


def test_planning_reads_recipes_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from bench import registry\n"
        "print([registry.TASKS.config(name).__name__ for name in registry.TASKS.ordered()])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "KnnConfig" in done.stdout
