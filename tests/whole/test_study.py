"""The main command as a user runs it, on a model small enough for seconds."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.run import main
from tests.conftest import TINY

ARMS = "mae,mae+mto,simmim,simmim+mto,data2vec,data2vec+mto"


def command(out: Path, *arguments: str) -> list[str]:
    return [*arguments, "--launcher", "inline", "--out", str(out), *TINY]


def test_a_study_runs_is_saved_and_is_not_computed_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path, "--methods", ARMS, "--epochs", "1,2", "--seeds", "1", "--name", "six")
    assert main(line) == 0
    table = capsys.readouterr().out
    for arm in ARMS.split(","):
        assert f"\n{arm} " in table
    assert "matched ✓" in table
    assert "reconstruction" in table
    study = tmp_path / "studies" / "six"
    assert (study / "report.md").read_text().startswith("#")
    assert (study / "accuracy.csv").exists()
    report = json.loads((study / "report.json").read_text())
    assert {row["arm"] for row in report["accuracy"]} == set(ARMS.split(","))
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 2 * 6 * 2
    stamps = {p: (p / "record.json").stat().st_mtime_ns for p in runs}
    assert main(line) == 0
    again = capsys.readouterr()
    assert again.out == table
    assert "to compute" not in again.err
    assert stamps == {p: (p / "record.json").stat().st_mtime_ns for p in runs}


def test_the_two_arms_of_an_a_a_comparison_are_equal_in_everything(tmp_path: Path) -> None:
    line = command(tmp_path, "--methods", "mae,mae@again", "--epochs", "2", "--seeds", "1")
    assert main(line) == 0
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/fin-*/record.json")]
    scores = ("scores", "pretrain_loss", "digests")
    one, two = ([r[s] for s in scores] for r in records)
    assert one == two
    weights = [p.read_bytes() for p in tmp_path.glob("runs/pre-*/encoder.safetensors")]
    assert len(weights) == 2
    assert weights[0] == weights[1]


def test_side_by_side_processes_compute_the_same_numbers(tmp_path: Path) -> None:
    arguments = ("--methods", "simmim+mto", "--epochs", "2", "--seeds", "1")
    assert main(command(tmp_path / "inline", *arguments)) == 0
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", *arguments, *TINY, "--out", str(tmp_path / "local")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2/2 runs done" in done.stderr
    assert "leak" not in done.stderr, (
        "nor does the process that forked them say anything at its end"
    )
    records = [
        json.loads(next((tmp_path / n / "runs").glob("fin-*/record.json")).read_text())
        for n in ("inline", "local")
    ]
    scores = ("scores", "pretrain_loss", "digests")
    one, two = ([r[s] for s in scores] for r in records)
    assert one == two


def test_a_failed_cell_sinks_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path, "--methods", "mae,simmim", "--epochs", "2", "--seeds", "1")
    line.append("simmim.pretrain.blr=1e6")
    assert main(line) == 1
    shown = capsys.readouterr()
    assert "\nmae " in shown.out
    assert "0/1" in shown.out
    assert "non-finite" in shown.err
    failed = next(p for p in (tmp_path / "runs").glob("pre-simmim*"))
    status = json.loads((failed / "status.json").read_text())
    assert (status["state"], status["failure"]) == ("failed", "non-finite")
    assert "NonFiniteLossError" in (failed / "log.txt").read_text()
    cell = next(p for p in (tmp_path / "runs").glob("fin-simmim*"))
    assert json.loads((cell / "status.json").read_text())["state"] == "blocked"


def test_a_loss_that_is_no_number_names_the_penalty_that_made_it_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"e": torch.tensor(math.nan)}
    monkeypatch.setattr("mto.plugin._Pass._measured", lambda self: measured)
    arm = "mae+mto(e,rows=all,lambda_e=0.01)"
    line = command(tmp_path, "--methods", f"mae,{arm}", "--epochs", "2", "--seeds", "1")
    assert main([*line, "--launcher", "inline"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "pretrain loss (a plug-in's penalty, mto.e) is not finite at step 1 of" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "maee", "--epochs", "1"], "Did you mean 'mae'"),
        (["--methods", "mae", "--epochs", ""], "no epoch budgets"),
        (["--methods", "mae", "--epochs", "many"], "'many' is not a positive whole number"),
        (["--methods", "mae", "--epochs", "1", "--seeds", "0"], "zero seeds"),
        (["--methods", "mae", "--epochs", "1", "--data", "digit"], "Did you mean 'digits'"),
        (["--methods", "mae", "--epochs", "1", "--data", "imagenet:/no"], "does not exist"),
        (["--methods", "mae", "--epochs", "99", "--preset", "imagenet"], "--data imagenet:DIR"),
        (["--methods", "mae", "--epochs", "1", "--out", "/proc/none"], "--out DIR"),
        (["--methods", "mae", "--epochs", "1", "pretrain.blrr=1"], "Did you mean 'pretrain.blr'"),
        (["--methods", "mae", "--epochs", "1", "pretain.blr=1"], "Did you mean 'pretrain'"),
        (["--methods", "mae", "--epochs", "1,2", "--target", "3"], "--target 3"),
        (["--method", "mae"], "unrecognized arguments: --method"),
        (["--methods", "mae", "--epochs", "1", "--batch-size", "-1"], "not a whole number from 0"),
        (["--methods", "mae", "--epochs", "1", "--assert", "rho(mae)=>1"], "is not a gate"),
        (["stauts"], "Did you mean 'status'"),
        (["ls", "method"], "Did you mean 'methods'"),
    ],
)
def test_bad_requests_get_one_clear_line_and_start_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_names_the_cells_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path / "o", "--methods", "mae,mae+mto", "--epochs", "1,2", "--dry-run")
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "pending" in shown
    assert "24 runs, 0 done" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command_name", ["status", "report"])
def test_nothing_measured_has_its_own_exit_code(command_name: str, tmp_path: Path) -> None:
    assert main([command_name, "--out", str(tmp_path)]) == 3


def test_the_list_of_methods_and_help_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from bench.run import main\n"
        "main(['ls', 'methods'])\n"
        "main(['status']), main(['report'])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "simmim" in done.stdout


def test_no_part_of_training_reads_a_global_generator(tmp_path: Path) -> None:
    weights, scores = [], []
    for poison in (1, 2):
        out = tmp_path / str(poison)
        random.seed(poison), np.random.seed(poison), torch.manual_seed(poison)
        more = ["finetune.mixup=0.8", "finetune.drop_path=0.3", "pretrain.augment.flip=0.5"]
        line = command(out, "--methods", "data2vec+mto", "--epochs", "2", "--seeds", "1", *more)
        assert main([*line, "data2vec.drop_path=0.2", "data2vec.attn_drop=0.1"]) == 0
        weights.append(next(out.glob("runs/pre-*/method.safetensors")).read_bytes())
        record = json.loads(next(out.glob("runs/fin-*/record.json")).read_text())
        scores.append(record["scores"])
    assert weights[0] == weights[1]
    assert scores[0] == scores[1]


@pytest.mark.drawn
def test_every_look_at_a_finished_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "a")]
    line = command(tmp_path / "a", "--methods", "mae,mae+mto", "--epochs", "1,2", "--seeds", "2")
    assert main([*line, "--name", "s"]) == 0
    runs = sorted(p.name for p in (tmp_path / "a" / "runs").iterdir())
    capsys.readouterr()

    def shown(*arguments: str, code: int = 0) -> str:
        assert main([*arguments]) == code
        return capsys.readouterr().out

    assert runs[0] in shown("status", "s", *out)
    assert re.search(r"^s +16 +16 +0 +0 +0 +\d", shown("status", *out), re.MULTILINE)
    assert "images/s" in shown("log", runs[-1], *out)
    assert re.search(r"finetune +1 ", shown("log", runs[0], *out))
    assert "s " in shown("ls", "studies", *out)
    assert "mae.mask_ratio" in shown("ls", "settings", "mae")
    assert "vit_base" in shown("ls", "published")
    assert "16 runs: done 16" in shown("top", "--once", *out)
    assert "done" in shown("log", runs[0], *out)
    assert "mae+mto" in shown("report", "s", *out)
    assert (tmp_path / "a" / "studies" / "s" / "report.html").exists()
    assert "mae" in shown("report", "--all", "--format", "md", *out)
    assert shown("power", *out)
    assert shown("compare", "s", "s", *out)
    layers = tmp_path / "layers"
    pre = [r for r in runs if r.startswith("pre-") and "-e2-s0-" in r]
    assert "H (entropy)" in shown("analyze", *pre, "--to", str(layers), *out)
    for picture in ("heterogeneity", "masked_to_masked", "masked_to_visible"):
        assert (layers / f"{picture}.png").stat().st_size > 1000
    assert json.loads((layers / "plateau.json").read_text()) == dict.fromkeys(pre)
    archive = tmp_path / "s.tar.gz"
    assert "17 folders" in shown("export", "s", "--to", str(archive), *out)
    other = ["--out", str(tmp_path / "b")]
    assert "17 imported" in shown("import", str(archive), *other)
    said = [shown("report", "s", "--format", "md", *place) for place in (other, out)]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("gate", "code", "pilot"),
    [
        ("accuracy(mae)>=0", 0, 4),
        ("accuracy(mae)>=101", 4, 4),
        ("acuracy(mae)>1", 2, 2),
    ],
)
def test_gates_have_exit_codes(gate: str, code: int, pilot: int, tmp_path: Path) -> None:
    line = command(tmp_path, "--methods", "mae", "--epochs", "1", "--seeds", "1")
    assert main([*line, "--assert", gate, "--allow-pilot"]) == code
    assert main([*line, "--assert", gate]) == pilot


def test_a_plan_with_calibration_names_the_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path, "--methods", "mae,mae+mto", "--epochs", "1,2", "--seeds", "1")
    assert main([*line, "--dry-run", "--calibrate"]) == 0
    shown, said = capsys.readouterr()
    assert "timing 2 of 2: mae+mto" in said
    assert "core-hours of pre-training" in shown
    assert "MiB on disk" in shown
    assert "mae+mto = mae + mto (" in shown
    assert not list(tmp_path.rglob("record.json"))


def test_tuning_records_every_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = command(tmp_path, "tune", "--methods", "mae,simmim", "--epochs", "1")
    assert main([*line, "--seeds", "1000-1000", "--grid", "pretrain.blr=1e-3,2e-3"]) == 0
    assert "pretrain.blr=2e-3" in capsys.readouterr().out
    (table,) = (tmp_path / "tuning").glob("*.csv")
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + 4
    assert rows[1].split(",")[2] == "1000"
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 8
    assert all((run / "config.json").exists() for run in runs)
    settings = [row.split(",")[3] for row in rows[1:]]
    assert settings == ["pretrain.blr=1e-3", "pretrain.blr=2e-3"] * 2, "as typed, arm by arm"
    assert main([*line, "--grid", "pretrain.blr"]) == 2


def test_a_search_over_a_range_prunes_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path, "tune", "--methods", "mae", "--epochs", "1,2", "--tasks", "knn")
    line = [word for word in line if not word.startswith(("finetune", "probe"))]
    line += ["--seeds", "1000-1000", "--grid", "pretrain.lr=1e-4..1e-1:log", "--prune"]
    assert main([*line, "--trials", "5", "--dry-run"]) == 0
    assert "5 settings an arm, at most 20 runs" in capsys.readouterr().out
    assert main([*line, "--trials", "3"]) == 0
    (path,) = (tmp_path / "tuning").glob("*.csv")
    first = pd.read_csv(path)
    assert (first["epochs"] == 1).sum() == 3
    assert 1 <= (first["epochs"] == 2).sum() < 3, "the worse ended early"
    kept = set(first.loc[first["epochs"] == 2, "settings"])
    short = first[first["epochs"] == 1].set_index("settings")["knn_top1"]
    assert short[list(kept)].min() >= short.median()
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/record.json")}
    assert main([*line, "--trials", "4"]) == 0
    again = pd.read_csv(path)
    assert set(first["run_id"]) < set(again["run_id"])
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert main([*line, "--search", "grid"]) == 2
    assert "is a range, and a grid needs values" in capsys.readouterr().err


def test_seeds_added_later_enter_the_table_as_deviations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(tmp_path, "--methods", "mae", "--epochs", "1", "--name", "s")
    assert main([*line, "--seeds", "1"]) == 0
    capsys.readouterr()
    assert main([*line, "--seeds", "2", "--margin", "7"]) == 0
    shown = capsys.readouterr()
    assert "2/2" in shown.out
    assert "planned with margin=1.0, which stands" in shown.err
    report = json.loads((tmp_path / "studies" / "s" / "report.json").read_text())
    assert any("seed not in the plan: 1" in text for text in report["deviations"])
    plan = json.loads((tmp_path / "studies" / "s" / "plan.json").read_text())
    assert plan["seeds"] == [0]
    assert len(plan["ids"]) == 2


def test_other_images_under_the_same_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for copy, names in (("a", "012345"), ("b", "123456")):
        for part in ("train", "val"):
            for kind in ("x", "y"):
                (tmp_path / copy / part / kind).mkdir(parents=True)
                for name in names:
                    green, blue = 99 * (part == "val"), 99 * (kind == "x")
                    picture = Image.new("RGB", (8, 8), (40 * int(name), green, blue))
                    picture.save(tmp_path / copy / part / kind / f"{name}.png")
    more = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]", "model.channels=3"]
    base = ["--methods", "mae", "--epochs", "1", "--seeds", "1", "--preset", "digits"]
    few = ["data.train_images=0", "data.labels=4", "pretrain.batch_size=6"]
    line = [*command(tmp_path / "o", *base, *more), *few]
    assert main([*line, "--data", f"folder:{tmp_path / 'a'}"]) == 0
    assert main([*line, "--data", f"folder:{tmp_path / 'b'}"]) == 2
    assert "computed on other images" in capsys.readouterr().err


def test_a_checkpoint_outside_a_run_needs_its_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pth").write_bytes(b"")
    assert main(["analyze", str(tmp_path / "x.pth"), "--to", str(tmp_path)]) == 2
    assert "--method and --preset" in capsys.readouterr().err


@pytest.mark.parametrize(("grid", "code"), [("pretrian.blr=1,2", 2), ("pretrain.blr=1e6,9e5", 3)])
def test_a_search_that_measures_nothing_says_so(grid: str, code: int, tmp_path: Path) -> None:
    line = command(tmp_path, "tune", "--methods", "simmim", "--epochs", "1", "--grid", grid)
    assert main([*line, "--seeds", "1000-1000"]) == code
