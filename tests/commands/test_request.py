from __future__ import annotations

from pathlib import Path

from bench.commands.parser import parse
from bench.commands.request import make_request


def test_sizes_of_a_presets_own_data_set_stay_behind_when_another_is_named(tmp_path: Path) -> None:
    line = ["--methods", "mae", "--epochs", "1", "--preset", "digits", "--out", str(tmp_path)]
    for data, typed, count in (
        ("digits", [], 512),
        (f"folder:{tmp_path}", [], 0),
        ("fashion-mnist", ["data.train_images=64"], 64),
    ):
        _, args = parse([*line, "--data", data, *typed])
        assert make_request(args).study.cells[0].config.data.train_images == count
