"""What `tune` offers and says of its trials, and which runs `analyze` draws as one line."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from bench.commands import analyze, tune
from bench.commands.tune import ranking
from bench.run import main


@pytest.mark.parametrize("how", ["--help", "--help-all"])
def test_the_help_of_tune_offers_nothing_that_it_refuses(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["tune", how])
    offered = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.split("settings:")[0]))
    refused = {"assert" if f == "gates" else f.replace("_", "-") for f in tune.OF_TABLES}
    assert not offered & {f"--{flag}" for flag in refused}
    assert "--grid" in offered


def test_tune_ranks_marks_the_best_and_says_what_the_seeds_tell_apart() -> None:
    scores = {"blr=1": (70.0, 71.0, 72.0), "blr=2": (75.0, 76.1, 77.0), "blr=3": (74.9, 76.0, 77.1)}
    rows = [
        {"arm": "mae", "epochs": 100, "seed": seed, "settings": name, "finetune_top1": score}
        | {"probe_top1": score - 10, "knn_top1": score - 20}
        for name, found in scores.items()
        for seed, score in enumerate(found)
    ]
    lines = ranking(pd.DataFrame(rows)).splitlines()
    assert lines[0] == "mae, 100 epochs"
    assert [line.split()[0] for line in lines[3:6]] == ["blr=2", "blr=3", "blr=1"]
    assert lines[3].split()[1] == "*"
    assert "not told apart" in lines[4]
    assert re.search(r"-5\.03 \[.*\], told apart", lines[5])


def test_runs_that_differ_in_their_seed_are_one_line_of_a_plot() -> None:
    """The mean over seeds with their range; another budget or arm is a line of its own."""
    first, last = {"epoch": 0, "key": [0.0, 0.5]}, {"epoch": 8, "key": [1.0, 3.0]}
    series = {
        "pre-mae-digits-e8-s0-00ff": [first, last],
        "pre-mae-digits-e8-s1-11ff": [first, {"epoch": 8, "key": [2.0, 5.0]}],
        "pre-mae-digits-e16-s0-22ff": [last],
    }
    lines = {line.label: line for line in analyze._plot("key", "", series).series}
    assert list(lines) == [
        "mae-digits-e8, epoch 0, 2 seeds",
        "mae-digits-e8, epoch 8, 2 seeds",
        "mae-digits-e16, epoch 8",
    ]
    mine = lines["mae-digits-e8, epoch 8, 2 seeds"]
    assert (mine.y, mine.low, mine.high) == ((1.5, 4.0), (1.0, 3.0), (2.0, 5.0))
    assert not lines["mae-digits-e16, epoch 8"].low


def test_runs_of_other_settings_or_depth_are_lines_of_their_own() -> None:
    """No mean is taken over two recipes of one seed, nor over two depths."""
    names = ["pre-mae-digits-e1-s0-00ff", "pre-mae-digits-e1-s0-11ff", "pre-mae-digits-e2-s1-22ff"]
    series = {name: [{"epoch": 0, "key": [0.0, float(i)]}] for i, name in enumerate(names)}
    labels = [line.label for line in analyze._plot("key", "", series).series]
    assert [label.replace("\n", " ") for label in labels] == [
        "mae-digits-e1-s0-00ff, epoch 0",
        "mae-digits-e1-s0-11ff, epoch 0",
        "mae-digits-e2, epoch 0",
    ]
    deeper = {names[0]: [{"epoch": 0, "key": [0.0]}]}
    deeper["pre-mae-digits-e1-s1-33ff"] = [{"epoch": 0, "key": [0.0, 1.0]}]
    assert [len(line.x) for line in analyze._plot("key", "", deeper).series] == [1, 2]
