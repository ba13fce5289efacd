"""Sub-commands that look at what is there: what they answer, on studies that were never trained."""

from __future__ import annotations

import argparse
import errno
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import library
from bench.plan.study import CELL
from bench.run import main
from bench.store import studies
from bench.store.archive import export
from bench.store.files import write_json
from bench.store.states import FAILED, RUNNING
from bench.store.store import Store
from tests.commands.conftest import Shown
from tests.support.synthetic import PLAN, RISING, changed, runs, stored


def test_a_score_that_is_no_number_is_a_failed_cell_and_in_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table's own remarks are cut after some."""
    first, *rest = runs(RISING)
    stored(tmp_path, "odd", [changed(first, finetune_top1=math.nan), *rest])
    assert main(["report", "--format", "md", "--out", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"1 cell(s) failed, their score is no number: {first.run_id}"


def test_settings_of_a_method_that_no_arm_has_are_told_by_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "smoke", "--methods", "mae", "--epochs", "1", "simmim.mask_ratio=0.5"]
    assert main([*words, "--dry-run", "--json", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said == "warning: simmim.mask_ratio changes nothing here: no arm is of simmim\n"


def test_power_of_one_arm_says_what_is_missing(tmp_path: Path, shown: Shown) -> None:
    stored(tmp_path, "one", runs({"mae": [80, 81, 82]}))
    said = shown("power", code=3)
    assert said.startswith("error: nothing to advise on: the study has no variant beside mae;")
    assert said.count("\n") == 1


def test_a_reader_that_has_enough_ends_the_output_quietly() -> None:
    line = f"{sys.executable} -u -m bench.run ls settings | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("setting")
    assert done.stderr == ""


def test_status_counts_by_study_and_lists_the_runs_of_one(tmp_path: Path, shown: Shown) -> None:
    store = stored(tmp_path, "mine", runs(RISING))
    store.run("pre-alone").path.mkdir()
    store.run("pre-alone").set_status("failed", failure="oom")
    lines = shown("status").splitlines()
    assert re.match(r"mine +30 +30 +0 +0 +0", lines[2])
    assert re.match(r"\(in no study\) +1 +0 +0 +1 +0", lines[3])
    listed = shown("status", "mine")
    assert "fin-mae+mto-digits-e400-s4" in listed
    assert "pre-alone" not in listed
    assert "Did you mean 'mine'" in shown("status", "mien", code=2)


def test_log_shows_epochs_losses_and_speed_of_a_running_run(tmp_path: Path, shown: Shown) -> None:
    run = stored(tmp_path, "mine", runs(RISING)).run("pre-mae-now")
    for epoch in range(1, 101):
        run.append_metrics({"stage": "pretrain", "epoch": epoch, "step": epoch, "loss": 1 / epoch})
    with run.lock():
        run.set_status(
            RUNNING, step=100, total=400, images_per_s=1234.0, started=1.0, since=2.0, since_step=50
        )
        text = shown("log", "pre-mae-now")
    assert "1,234 images/s, step 100 of 400, ETA" in text
    losses = re.findall(r"^pretrain +(\d+) +([\d.]+)$", text, re.MULTILINE)
    assert (losses[0], losses[-1]) == (("1", "1.0000"), ("100", "0.0100"))
    assert len(losses) == 12


@pytest.mark.parametrize("columns", [80, 200])
def test_top_shows_whole_ids(
    columns: int, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    name = "pre-data2vec+mto-fashion-mnist-e100-s100-7921f81c5f79"
    run = stored(tmp_path, "mine", runs(RISING)).run(name)
    run.path.mkdir()
    run.set_status(FAILED, stage="pretrain", step=100, total=400, failure="diverged", loss=0.1)
    counts, _, *rows = shown("top", "--once").splitlines()
    assert counts.endswith("failed 1")
    width = len(rows[0][: rows[0].index("failed")])
    assert "".join(row[:width].strip() for row in rows) == name
    assert "not above 0" in shown("top", "-i", "-1", code=2)


def test_compare_reads_relative_folders_and_prefers_studies(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, "mine", runs(RISING))
    monkeypatch.chdir(tmp_path / "studies")
    said = shown("compare", "mine", "./mine")
    assert "mae+mto" in said
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "mine").mkdir(parents=True)  # tables alone, as report --archive leaves them
    monkeypatch.chdir(elsewhere)
    assert shown("compare", "mine", "mine").splitlines()[2:] == said.splitlines()[2:]


def test_two_studies_of_one_name_are_told_apart(tmp_path: Path, shown: Shown) -> None:
    for place in ("a", "b"):
        stored(tmp_path / place, "mine", runs(RISING))
    a, b = (str(tmp_path / place / "studies" / "mine") for place in ("a", "b"))
    assert f"# {a} against {b}" in shown("compare", a, b)
    said = shown("compare", str(tmp_path / "a"), b, code=2)
    assert said.endswith("a/studies/STUDY.\n")


def test_what_has_finished_cannot_be_cancelled(tmp_path: Path, shown: Shown) -> None:
    stored(tmp_path, "mine", runs(RISING))
    assert "has finished: there is nothing to stop" in shown("cancel", "fin-mae", code=3)
    assert "unknown run 'fin-mea'" in shown("cancel", "fin-mea", code=2)


def test_ls_settings_tells_default_range_and_source(shown: Shown) -> None:
    text = shown("ls", "settings", "mae")
    line = r"^mae\.mask_ratio +0\.75 +float \(0, 1\) +\[mae\] main_pretrain\.py --mask_ratio$"
    assert re.search(line, text, re.MULTILINE)
    assert re.search(r"^mae\.norm_pix_loss +True +bool", text, re.MULTILINE)
    assert re.search(r"^mto\.keep_self +False +bool", shown("ls", "settings", "mto"), re.MULTILINE)
    assert "Did you mean 'mae'" in shown("ls", "settings", "maee", code=2)
    assert re.search(r"^knn\.pool +\S+ +mean \| cls", shown("ls", "settings"), re.MULTILINE)


def test_ls_published_names_method_epochs_and_source(shown: Shown) -> None:
    lines = shown("ls", "published").splitlines()
    assert any(re.match(r"mae +vit_base +1600 +fine-tune top-1 +83\.\d\d ", x) for x in lines)


def test_ls_studies_tells_what_they_compare(tmp_path: Path, shown: Shown) -> None:
    stored(tmp_path, "mine", runs(RISING))
    assert re.search(r"^mine +mae,mae\+mto +100,200,400 +5", shown("ls", "studies"), re.MULTILINE)


def test_power_takes_the_newest_study_with_results_and_names_it(
    tmp_path: Path, shown: Shown
) -> None:
    stored(tmp_path, "mine", runs(RISING))
    write_json(tmp_path / "studies" / "planned" / "plan.json", {**PLAN, "ids": ["fin-none"]})
    assert shown("power").startswith("# Power of study mine\n")
    (tmp_path / "studies" / "mine" / "plan.json").unlink()
    assert "has a result yet" in shown("power", code=3)


def test_power_prints_no_ratio_beyond_the_budgets(tmp_path: Path, shown: Shown) -> None:
    stored(tmp_path, "mine", runs(RISING, noise=4.0))
    text = shown("power")
    assert "beyond the budgets (×2)" in text
    assert all(float(ratio) <= 2 for ratio in re.findall(r"\| ×([\d.]+) \|", text))


def test_compare_takes_names_folders_archives_and_report_json(tmp_path: Path, shown: Shown) -> None:
    store = stored(tmp_path, "mine", runs(RISING))
    study = tmp_path / "studies" / "mine"
    archive = tmp_path / "packed.tar.gz"
    export(store, [study, *(f.path for f in store.folders())], archive)
    assert main(["report", "mine", "--out", str(tmp_path), "--format", "json"]) == 0
    shown("ls")
    paired = [shown("compare", "mine", other) for other in (str(study), str(archive))]
    assert all("+0.00 [+0.00, +0.00] | 5 | 1.000 |" in text for text in paired)
    assert paired[1].startswith("# mine against packed")
    brief = shown("compare", "mine", str(study / "report.json"))
    assert "| digits | mae | fine-tune top-1 | 100 | 80.00 ± " in brief
    assert "nothing is paired" in brief
    assert "no report.json" in shown("compare", "mine", str(study / "plan.json"), code=2)
    odd = tmp_path / "odd.json"
    for was, then in (('"epochs": 100', '"epochs": "x"'), ('"mean"', '"men"'), ("{", "[{")):
        odd.write_text((study / "report.json").read_text().replace(was, then, 1))
        assert "no report.json" in shown("compare", "mine", str(odd), code=2)


def test_a_damaged_file_hides_no_other_study(tmp_path: Path, shown: Shown) -> None:
    store = stored(tmp_path, "mine", runs(RISING))
    future = store.run("pre-future")
    future.path.mkdir()
    future.set_status(RUNNING, step=1, total=2)
    write_json(future.path / "status.json", {**future.status(), "state": RUNNING, "beat": 4e9})
    for name in ("torn", "other"):
        (tmp_path / "studies" / name).mkdir()
    (tmp_path / "studies" / "torn" / "plan.json").write_text("{")
    write_json(tmp_path / "studies" / "other" / "plan.json", {**PLAN, "ids": ["fin-torn"]})
    store.run("fin-torn").path.mkdir()
    (store.run("fin-torn").path / "config.json").write_text("{")
    said = shown("status")
    assert re.search(r"^mine +30 +30 ", said, re.MULTILINE)
    assert re.search(r"^torn: .*plan\.json' is damaged", said, re.MULTILINE)
    assert re.search(r"^other: .*config\.json' is damaged", said, re.MULTILINE)
    assert re.search(r"^\(in no study\) .* 0\.0 \S+ ago$", said, re.MULTILINE), "not before now"
    with future.lock():
        write_json(future.path / "status.json", {**future.status(), "beat": 4e9})
        assert " 0 s ago" in shown("top", "--once")
    assert re.search(r"^torn +\(its plan is damaged\)", shown("ls", "studies"), re.MULTILINE)
    (tmp_path / "studies" / "other" / "plan.json").unlink()
    assert shown("power").startswith("# Power of study mine\n")


def test_doctor_reads_images_as_a_study_would(tmp_path: Path, shown: Shown) -> None:
    """Grey ones, and without a test part: sized and held out as told."""
    grey = np.zeros((40, 8, 8), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "own.npz", x_train=grey, y_train=np.arange(40) % 2)
    said = shown("doctor", "--data", str(tmp_path / "own.npz"), "data.holdout=0.2")
    assert re.search(r"^ok +data +npz: 32 training and 8 test images, 2 classes", said, re.M)


def test_an_import_says_which_cells_the_study_here_does_not_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two machines computed seeds of one study; each has its own in the plan."""
    records = list(runs(RISING))
    halves = [[r for r in records if (r.seed < 3) is here] for here in (True, False)]
    stores = [stored(tmp_path / n, "mine", half) for n, half in zip("ab", halves, strict=True)]
    for store, half in zip(stores, halves, strict=True):
        for r in half:
            config = {"stage": CELL, "run_id": r.run_id, "parent": r.pretrain_id, "config": {}}
            write_json(store.run(r.run_id).path / "config.json", config)
    archive, out = tmp_path / "b.tar.gz", ["--out", str(tmp_path / "a")]
    study = tmp_path / "b" / "studies" / "mine"
    export(stores[1], [study, *(f.path for f in stores[1].folders())], archive)
    assert main(["import", str(archive), *out]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"warning: the plan of 'mine' stays as it was; {len(halves[1])} of the")
    assert main(["import", str(archive), *out]) == 0
    assert capsys.readouterr().err == "", "nothing new came in"


def test_a_retry_from_elsewhere_reads_paths_as_the_command_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    for folder in (started, tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (started / "mine.yaml").write_text("extends: smoke\n")
    monkeypatch.chdir(started)
    words = ["--config", "mine.yaml", "--name", "s", "--out", "../out"]
    write_json(tmp_path / "out" / "studies" / "s" / "plan.json", {**PLAN, "ids": []})
    studies.folder_of(Store(tmp_path / "out"), "s").note_arguments(words)
    seen = []

    def run_study(args: argparse.Namespace) -> int:
        seen.append((Path.cwd(), args.out))
        assert args.command_line == words, "as it was given first"
        return 0

    monkeypatch.setattr("bench.commands.study.run_study", run_study)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["retry", "s", "--out", "../out"]) == 0
    ((where, out),) = seen
    assert where == started
    assert Path(out).resolve() == tmp_path / "out"
    assert Path.cwd() == tmp_path / "elsewhere"
    (tmp_path / "out" / "studies" / "s").rename(tmp_path / "out" / "studies" / "t")
    assert main(["retry", "t", "--out", "../out"]) == 2, "the command means another study"
    assert len(seen) == 1


def test_a_home_in_any_option_that_names_a_place(
    tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``--to=~/tables``, where a shell leaves it as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    stored(tmp_path, "mine", runs(RISING))
    shown("report", "--to=~/tables", "--format", "md")
    assert (tmp_path / "home" / "tables" / "report.md").exists()
    shown("export", "--to=~/mine.tar.gz")
    assert main(["import", "~/mine.tar.gz", "--out", "~/other"]) == 0
    assert (tmp_path / "home" / "other" / "studies" / "mine").is_dir()
    said = shown("plan", "--config=~/no.yaml", code=2)
    assert f"cannot read suite file '{tmp_path}/home/no.yaml'" in said


def test_a_plan_of_many_arms_names_a_few_of_those_it_knows_no_speed_of(tmp_path, capsys):
    settings = (f"mae+mto(all,lambda_e=0.{number})" for number in range(1, 8))
    arms = ",".join(["mae", *settings])
    given = ["--methods", arms, "--epochs", "1", "--preset", "smoke", "--out", str(tmp_path)]
    assert main([*given, "--dry-run"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("cost")]
    assert "yet of mae, mae+mto(all" in line
    assert "and 4 more; add --calibrate" in line


def test_a_report_of_a_folder_that_may_be_read_alone_names_the_way_out(
    tmp_path, capsys, monkeypatch
):
    stored(tmp_path, "s", runs(RISING))

    def refuse(*given: object) -> list[Path]:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(library, "report", refuse)
    assert main(["report", "s", "--out", str(tmp_path)]) == 2
    assert "report STUDY --to DIR" in capsys.readouterr().err


def test_a_report_that_cannot_be_read_is_a_wrong_argument(tmp_path, capsys):
    (broken := tmp_path / "report.json").write_text("{}")
    assert main(["compare", str(broken), str(broken)]) == 2
    assert "is no report.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["report s --format md --to {}", "export s --to {}/x.tgz", "export s --to {}/y/x.tgz"]
)
def test_a_file_where_a_folder_is_needed_is_told(line: str, tmp_path: Path, shown: Shown) -> None:
    stored(tmp_path, "s", runs(RISING))
    (tmp_path / "a.log").write_text("a file")
    said = shown(*line.format(tmp_path / "a.log").split(), code=2)
    assert re.match(r"error: '.*a\.log.*': (File exists\. A folder|Not a directory)", said)
    assert said.count("\n") == 1
    assert (tmp_path / "a.log").read_text() == "a file"
