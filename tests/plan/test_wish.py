from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.plan.wish import Wish, plan_wish


def test_sizes_of_a_presets_own_data_set_stay_behind_when_another_is_named(tmp_path: Path) -> None:
    for data, typed, count in (
        ("digits", [], 512),
        (f"folder:{tmp_path}", [], 0),
        ("fashion-mnist", ["data.train_images=64"], 64),
    ):
        wish = Wish(methods="mae", epochs="1", preset="digits", data=data, settings=typed)
        assert plan_wish(wish).study.cells[0].config.data.train_images == count


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("[7]", [7]), ("7", list(range(7))), ("[7, 9]", [7, 9]), ('["7-8"]', [7, 8])],
)
def test_a_list_of_one_seed_in_a_suite_file_is_that_seed(
    written: str, seeds: list[int], tmp_path: Path
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"extends: smoke\nmethods: [mae]\nepochs: [1]\nseeds: {written}\n")
    cells = plan_wish(Wish(config=str(suite))).study.cells
    assert sorted({c.config.seed for c in cells}) == seeds


def test_a_preset_beside_a_suite_of_another_is_refused(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("extends: smoke\nmethods: [mae]\nepochs: [1]\n")
    both = [plan_wish(Wish(config=str(suite), preset=preset)) for preset in ("smoke", "")]
    assert both[0].study == both[1].study
    with pytest.raises(UsageError, match=r"extends 'smoke', so --preset digits would not count"):
        plan_wish(Wish(config=str(suite), preset="digits"))
    suite.write_text("methods: [mae]\nepochs: [1]\n")
    assert plan_wish(Wish(config=str(suite), preset="digits")).study.preset == "digits"


@pytest.mark.parametrize(
    ("arm", "written"),
    [
        ("mae+mto", "mae+mto(recal)"),
        ("mae+mto(rows=all)", "mae+mto:rows=all"),
        ("mae+mto(rows=all)", "mae+mto(rows=all,keep_self=false)"),
    ],
)
def test_trials_of_an_arm_count_in_any_spelling(arm: str, written: str, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"extends: smoke\ntrials: {{mae: 4, '{written}': 99, simmim: 7}}\n")
    wish = Wish(config=str(suite), methods=f"mae,{arm}", epochs="1", seeds="1")
    assert f"unequal tuning: {arm} had 99 trials, mae 4" in plan_wish(wish).warnings


def test_trials_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("extends: smoke\ntrials: {mae: 4, mae+mto: 4, 'mae+mto(recal)': 9}\n")
    wish = Wish(config=str(suite), methods="mae,mae+mto", epochs="1", seeds="1")
    with pytest.raises(UsageError, match=r"trials names 'mae\+mto' twice, with 4 and 9"):
        plan_wish(wish)


def test_settings_of_the_method_whose_recipe_an_arm_takes_are_read() -> None:
    wish = Wish(methods="crossmae", epochs="1", settings=["mae.pretrain.lr=1e-3"], preset="smoke")
    assert plan_wish(wish).study.cells[0].config.pretrain.lr == 1e-3


SUITE = """extends: smoke
epochs: [1]
mae: {mask_ratio: 0.6, decoder_depth: 1}
simmim: {mask_ratio: 0.5, pretrain: {lr: 0.001}}
mto: {tau: 0.2}
"""


@pytest.mark.parametrize(
    ("methods", "settings", "told"),
    [
        ("mae", "simmim.mask_ratio=0.5", "simmim.mask_ratio changes nothing here: no arm is of"),
        ("mae", "simmim.pretrain.lr=1e-3", "simmim.pretrain.lr changes nothing here"),
        ("mae,simmim", "simmim.mask_ratio=0.5", ""),
        ("crossmae", "mae.mask_ratio=0.6", ""),
        ("crossmae", "mae.norm_pix_loss=false simmim.mask_ratio=0.5", "simmim.mask_ratio changes"),
        ("mae,mae+mto", "mto.tau=0.2 mae.mto.rows=all", ""),
    ],
)
def test_settings_that_act_on_no_arm_are_told(methods: str, settings: str, told: str) -> None:
    """The preset's own, of which it has some for every method, are not."""
    wish = Wish(methods=methods, epochs="1", settings=settings.split(), preset="digits")
    idle = plan_wish(wish).idle
    assert len(idle) == bool(told)
    assert not told or idle[0].startswith(told)


def test_those_of_a_suite_file_are_told_in_the_same_line(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    told = plan_wish(Wish(config=str(suite), methods="mae", settings=["conmim.momentum=0.9"])).idle
    assert told == [
        "simmim.mask_ratio, simmim.pretrain.lr change nothing here: no arm is of simmim; "
        "conmim.momentum changes nothing here: no arm is of conmim; "
        "mto.tau changes nothing here: no arm is METHOD+mto"
    ]
    assert plan_wish(Wish(config=str(suite), methods="mae,mae+mto,simmim")).idle == []
