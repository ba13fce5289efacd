"""What a command does with settings, marks and failures of runs before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import library
from bench.plan.study import PRETRAIN
from bench.plan.wish import Wish
from bench.run import main
from bench.store.states import BLOCKED, FAILED, PENDING
from tests.commands.conftest import Shown
from tests.support.synthetic import RISING, runs, stored


def test_a_run_that_waits_is_left_out_by_its_name(tmp_path: Path, shown: Shown) -> None:
    run = stored(tmp_path, "mine", runs(RISING)).run("pre-mae-digits-e100-s9-0123456789ab")
    run.path.mkdir()
    assert "nothing to cancel" in shown("cancel", code=3)
    before = run.cancellation()
    said = shown("cancel", "pre-mae-digits-e100-s9")
    assert said.splitlines()[0] == f"left out by a command that runs now: {run.run_id}"
    assert run.cancellation() != before


@pytest.mark.parametrize(
    "words", ["report", "retry", "ls methods", "status", "power", "top --once", "log pre-mae"]
)
def test_a_setting_where_none_is_read_is_refused(
    words: str, tmp_path: Path, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """``retry pretrain.lr=...`` would run what has failed with the rate that it failed with."""
    assert main([*words.split(), "pretrain.lr=1e-3"]) == 2
    said = capsys.readouterr().err
    assert f"'pretrain.lr=1e-3' is not read by '{words.split()[0]}'" in said
    assert ("the study's own command" in said) is words.startswith("retry")


def test_a_run_is_not_drawn_with_other_settings(tmp_path: Path, shown: Shown) -> None:
    store = stored(tmp_path, "mine", runs(RISING))
    run = store.run("pre-mae-digits-e100-s9-0123456789ab")
    run.path.mkdir()
    said = shown("show", run.run_id, "mae.mask_ratio=0.1", code=2)
    assert "'mae.mask_ratio=0.1' is read with --method alone" in said


def test_a_dry_run_shows_what_the_run_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failures stay until --retry, what hangs on them is blocked, other settings are refused."""
    line = ["--preset", "smoke", "--methods", "mae,mae+null", "--epochs", "1", "--seeds", "1"]
    line += ["--name", "s", "--out", str(tmp_path)]
    words = {"methods": "mae,mae+null", "epochs": "1", "seeds": "1", "preset": "smoke"}
    request = library.plan(Wish(**words, name="s"), tmp_path)
    library.freeze(request)
    first = next(t for t in request.study.tasks() if t.stage == PRETRAIN)
    for task in request.study.tasks():
        request.store.register(task)
    request.store.run(first.run_id).set_status(FAILED, failure="non-finite")

    def states(*more: str) -> dict[str, str]:
        assert main([*line, "--dry-run", "--json", *more]) == 0
        found: dict[str, str] = json.loads(capsys.readouterr().out)["states"]
        return found

    cell = next(t.run_id for t in request.study.tasks() if t.parent == first.run_id)
    assert states() | {first.run_id: FAILED, cell: BLOCKED} == states()
    assert set(states("--retry").values()) == {PENDING}
    assert main([*line, "--dry-run", "--launcher", "slurm"]) == 0
    assert "1 pre-training" in capsys.readouterr().out
    assert main([*line, "--dry-run", "--margin", "0.5"]) == 0
    assert "planned with margin=" in capsys.readouterr().err
    assert main([*line, "--dry-run", "pretrain.lr=1e-2"]) == 2
    said = capsys.readouterr().err
    assert main([*line, "pretrain.lr=1e-2"]) == 2
    assert capsys.readouterr().err == said
