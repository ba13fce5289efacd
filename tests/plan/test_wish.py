from __future__ import annotations

from pathlib import Path

from bench.plan.wish import Wish, plan_wish


def test_sizes_of_a_presets_own_data_set_stay_behind_when_another_is_named(tmp_path: Path) -> None:
    for data, typed, count in (
        ("digits", [], 512),
        (f"folder:{tmp_path}", [], 0),
        ("fashion-mnist", ["data.train_images=64"], 64),
    ):
        wish = Wish(methods="mae", epochs="1", preset="digits", data=data, settings=typed)
        assert plan_wish(wish).study.cells[0].config.data.train_images == count
