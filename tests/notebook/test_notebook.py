"""``import bench``: a study by the command line's names, its tables, its encoders."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench import registry
from bench.errors import NothingMeasuredError, UsageError
from bench.notebook import progress
from bench.run import main
from bench.store.archive import export
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
QUICK = {"launcher": "inline", "device": "cpu", "threads": 1}
ARMS, TASKS = ["mae", "mae+null", "simmim"], ["finetune", "knn"]
SETTINGS = [setting for setting in TINY if not setting.startswith("probe")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bench.Study:
    out = str(tmp_path_factory.mktemp("notebook"))
    made = bench.Study(ARMS, [1], 2, "digits", out=out, tasks=TASKS, settings=SETTINGS, **QUICK)
    assert "nothing measured yet" in made._repr_html_()
    with pytest.raises(NothingMeasuredError):
        made.verdict()
    return made.run()


def test_a_study_that_has_not_run_does_not_show_the_others_of_its_folder(
    study: bench.Study,
) -> None:
    out = next(word for word in study.arguments if word.startswith("--out="))[6:]
    fresh = bench.Study(["simmim"], [1], 2, "digits", out=out, settings=SETTINGS, **QUICK)
    assert "nothing measured yet" in fresh._repr_html_()
    for look in (fresh.verdict, fresh.report, lambda: fresh.accuracy):
        with pytest.raises(NothingMeasuredError, match="has not been run"):
            look()


def test_a_study_from_plan_to_tables(study: bench.Study, tmp_path: Path) -> None:
    plan = study.plan()
    assert len(plan) == 12
    assert set(plan["state"]) == {"done"}
    assert list(plan.attrs) == ["warnings"]
    assert set(study.results()["run_id"]) == set(plan.query("stage == 'cell'")["run_id"])
    assert set(study.accuracy["arm"]) == set(ARMS)
    assert set(study.differences["arm"]) == set(study.targets["arm"]) == {"mae+null"}
    assert study.costs["pretrain_s_per_epoch"].gt(0).all()
    names = {p.name for p in study.report(str(tmp_path / "tables"), "csv, md")}
    assert names >= {"report.md", "accuracy.csv"}
    page = study._repr_html_()
    assert "<table" in page
    assert "mae+null" in page


def test_it_is_the_study_of_the_same_command(
    study: bench.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--methods", ",".join(ARMS), "--epochs", "1", "--seeds", "2", "--data", "digits"]
    line += ["--tasks", ",".join(TASKS), "--out", str(study.store.root)]
    assert main([*line, *SETTINGS, "--dry-run"]) == 0
    assert "12 runs, 12 done" in capsys.readouterr().out
    assert study.folder.arguments() == study.arguments, "so that retry can start it again"


def test_folders_and_archives_are_opened_by_their_paths(study: bench.Study, tmp_path: Path) -> None:
    archive = tmp_path / "study.tar.gz"
    runs = [f.path for f in study.store.folders()]
    export(study.store, [study.folder.path, *runs], archive, records_only=True)
    for place in (str(study.store.root), str(study.folder.path), str(archive)):
        opened = bench.open(place)
        assert opened.name == study.name
        assert opened.accuracy.equals(study.accuracy)
        assert opened.verdict() == study.verdict()
    assert repr(opened) == f"Unpacked('{study.name}' in '{archive}')"
    assert (tmp_path / study.name / "report.md") in opened.report(formats=["md"])
    with pytest.raises(UsageError, match="does not exist"):
        bench.open(tmp_path / "nothing")


@pytest.mark.parametrize("arm", ["mae+null", "simmim"])
def test_an_encoder_becomes_a_timm_model(study: bench.Study, arm: str) -> None:
    from bench.plan.resolve import run_from_plain
    from bench.train.checkpoint import load_weights
    from bench.train.method import build_method

    (cell, *_) = study.results().query("arm == @arm")["run_id"]
    folder = study.store.pretraining(cell)
    method = build_method(run_from_plain((folder.config() or {})["config"])).encoder()
    method.load_state_dict(load_weights(folder.encoder))
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for pool in ("mean", "cls"):
        model = bench.encoder(cell, out=str(study.store.root), pool=pool)
        assert type(model).__module__.startswith("timm.models.")
        with torch.no_grad():
            torch.testing.assert_close(model(images), method.eval().features(images, pool))
    by_path = bench.encoder(str(folder.path))
    assert by_path.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"sedes": 5}, "unknown keyword 'sedes'. Did you mean 'seeds'"),
        ({"methods": "maee"}, "unknown method 'maee'. Did you mean 'mae'"),
        ({"json": True}, "unknown keyword 'json'"),
        ({"assert": "rho(mae+mto)>1"}, "unknown keyword 'assert'"),
        ({"settings": {"pretrain.lbr": 1}}, "blr"),
        ({"track": ["cvs"]}, "unknown tracker 'cvs'"),
    ],
)
def test_wrong_words_are_told_at_once(words: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        bench.Study(**{"methods": "mae", "epochs": 1, "seeds": [7], **words}, out=tmp_path)


def test_one_seed_in_a_list_is_that_seed_and_one_setting_is_one(tmp_path: Path) -> None:
    planned = bench.Study("mae", 1, [7], out=tmp_path, settings="pretrain.blr=0.5")._request.study
    assert {(c.config.seed, c.config.pretrain.blr) for c in planned.cells} == {(7, 0.5)}


def test_progress_is_drawn_into_a_notebooks_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, said: dict[str, str], raw: bool) -> None:
            shown.append(said)

    def display(said: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(said)
        return Handle()

    from bench.launch.base import Progress
    from tests.conftest import tiny_study

    monkeypatch.setattr(progress, "_display", lambda: display)
    runs = [Progress(task, "running", 0.5) for task in tiny_study("mae").tasks()]
    with progress.view() as watch:
        watch(runs)
        for run in runs:
            run.state = "done"
        runs[1].state, runs[1].status = "failed", {"message": "a <b> tag"}
        watch(runs)
    first, last = shown
    assert first["text/plain"].startswith("50%, 0/2 runs")
    assert 'value="0.5000"' in first["text/html"]
    assert "1/2 runs" in last["text/plain"]
    assert "failed a &lt;b&gt; tag" in last["text/html"]


@pytest.mark.slow
def test_a_script_needs_no_guard_against_its_own_processes(tmp_path: Path) -> None:
    words = {"seeds": [0], "out": str(tmp_path / "out"), "tasks": "knn", "jobs": 1}
    script = tmp_path / "script.py"
    settings = [s for s in SETTINGS if not s.startswith("finetune")]
    lines = ["import bench", f"study = bench.Study('mae', 1, settings={settings}, **{words})"]
    script.write_text("\n".join([*lines, "print('begun')", "study.run()", "print('ended')"]))
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=_env()
    )
    assert ran.stdout.split() == ["begun", "ended"], ran.stderr


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_public_names_are_there_and_typed() -> None:
    assert sorted(bench.__all__) == bench.__all__
    assert set(bench._PLACES) == set(bench.__all__)
    assert set(bench.__all__) <= set(dir(bench))
    for name in bench.__all__:
        found = getattr(bench, name)
        assert inspect.getdoc(found), name
        assert callable(found)
    for package in ("bench", "baselines", "mto"):
        assert (ROOT / package / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        bench.Studdy  # noqa: B018


def test_importing_it_is_light() -> None:
    code = (
        "import sys, time; begun = time.perf_counter(); import bench; "
        "took = time.perf_counter() - begun; dir(bench); bench.BenchError; "
        "heavy = {'torch', 'pandas', 'numpy', 'timm', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy; assert took < 0.1, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_console_script_is_the_main_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert registry.load(project["scripts"]["mto-bench"]) is main
