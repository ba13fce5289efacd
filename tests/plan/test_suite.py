from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench import registry
from bench.errors import UsageError
from bench.plan import typed
from bench.plan.config import Resources
from bench.plan.keys import check_keys
from bench.plan.layers import load_preset, load_recipe, load_yaml, merged, preset_names
from bench.plan.resolve import Resolver
from bench.plan.sections import peak_lr, warmup
from bench.plan.wish import Wish, plan_wish


def resolve(methods: str, *overrides: str, preset: str = "digits") -> list:
    layers = (*load_preset(preset), typed.parse_overrides(overrides))
    return [Resolver(layers).resolve(a, 10, 0) for a in typed.parse_arms(methods)]


def test_lists_split_at_commas_and_blanks_but_not_in_parentheses() -> None:
    assert typed.split_list("a, b c,d(e,f g)") == ["a", "b", "c", "d(e,f g)"]
    assert typed.split_list(["a,b", "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["mae+mto(spa,e)", "mae+mto:spa.e"])
def test_terms_are_named_in_parentheses_or_without_quotes(text: str) -> None:
    (config,) = resolve(text)
    assert config.arm == "mae+mto(spa,e)"
    assert config.plugins[0][1].terms == ("spa", "e")


def test_an_alias_is_another_arm_of_the_same_method() -> None:
    one, two = resolve("mae,mae@again")
    assert (one.arm, two.arm, two.base_arm) == ("mae", "mae@again", "mae")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: typed.parse_arms("maee"), "unknown method 'maee'. Did you mean 'mae'"),
        (lambda: typed.parse_arms("mae+mtoo"), "unknown plugin 'mtoo'. Did you mean 'mto'"),
        (lambda: resolve("mae+mto(spaa)"), "unknown mto term 'spaa'. Did you mean 'spa'"),
        (lambda: typed.parse_arms(""), "no methods given"),
        (lambda: typed.parse_epochs(""), "no epoch budgets"),
        (lambda: typed.parse_epochs("100,abc"), "'abc' is not a positive whole number"),
        (lambda: typed.parse_epochs("0"), "'0' is not a positive"),
        (lambda: typed.parse_seeds("0"), "zero seeds"),
        (lambda: typed.parse_seeds("x"), "cannot read seeds 'x'"),
        (lambda: typed.parse_data("digit"), "unknown data set 'digit'. Did you mean 'digits'"),
        (lambda: typed.parse_data("imagenet"), "needs a folder"),
        (lambda: typed.parse_data("imagenet:/no/such"), "does not exist"),
        (lambda: typed.parse_data("./no-such"), "does not exist"),
        (lambda: load_preset("digit"), "unknown preset 'digit'. Did you mean 'digits'"),
        (lambda: typed.parse_overrides(["blr"]), "cannot read 'blr'"),
        (lambda: resolve("mae", "pretrain.blrr=1"), "Did you mean 'pretrain.blr'"),
        (lambda: resolve("mae", "mae.mask=1"), "unknown setting 'mae.mask'"),
        (lambda: resolve("mae", "pretrain.blr=fast"), "not a valid float"),
        (lambda: typed.parse_arms("mae@again+mto"), "goes last: mae+mto@again"),
        (lambda: typed.parse_overrides(["mae.a=5", "mae.a.b=1"]), "'a' has a value already"),
        (lambda: typed.parse_overrides(["pretrain.milestones=[0.5"]), "is not valid YAML"),
        (lambda: resolve("mae", "mae.mask_ratio=75"), "lie between 0 and 1"),
        (lambda: resolve("data2vec", "data2vec.target_layers=0"), "must be at least 1"),
        (lambda: resolve("mae", "pretrain.batch_size=0"), "must be at least 1"),
        (lambda: resolve("mae", "finetune.mixup=-1"), "finetune.mixup=-1.0 must be at least 0"),
        (lambda: resolve("mae", "probe.epochs=0"), "probe.epochs=0 must be at least 1"),
        (lambda: resolve("mae", "pretrain.augment.flip=2"), "flip=2.0 must lie in"),
        (lambda: resolve("mae", "data.test_images=99"), "Set data.test_images=0"),
        (lambda: Resources(threads=-1), "resources.threads=-1 must be at least 0"),
        (lambda: resolve("mae", "finetune.layer_decay=1.5"), "above 0 and at most 1"),
        (lambda: resolve("mae", "knn.temperature=0"), "must be above 0"),
        (lambda: resolve("mae", "data.classes=17", preset="procedural"), "lie in [0, 16]"),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_near(call, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_ranges() -> None:
    assert typed.parse_epochs("400,100, 100") == [100, 400]
    assert typed.parse_seeds("3") == [0, 1, 2]
    assert typed.parse_seeds("3-5") == [3, 4, 5]
    assert typed.parse_seeds("0,7") == [0, 7]
    assert typed.parse_seeds("7,") == typed.parse_seeds(["7,"]) == [7]
    assert typed.parse_seeds(["5-6", "1"]) == [1, 5, 6]


def test_overrides_reach_all_methods_or_one() -> None:
    mae, simmim = resolve("mae,simmim", "pretrain.weight_decay=0.2", "mae.pretrain.blr=0.5")
    assert mae.pretrain.weight_decay == simmim.pretrain.weight_decay == 0.2
    assert mae.pretrain.blr == 0.5 != simmim.pretrain.blr
    (wrapped,) = resolve("mae+mto", "mto.lambda_spa=0.25", "mae.mask_ratio=0.5")
    assert wrapped.plugins[0][1].lambda_spa == 0.25
    assert wrapped.hyper.mask_ratio == 0.5


def test_plug_in_settings_can_differ_by_method() -> None:
    mae, simmim = resolve("mae+mto,simmim+mto", "mae.mto.lambda_spa=0.75")
    assert mae.plugins[0][1].lambda_spa == 0.75 != simmim.plugins[0][1].lambda_spa


def test_a_suite_file_extends_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("extends: digits\npretrain: {blr: 1e-3}\nmethods: mae\n")
    layers = load_yaml(path)
    assert layers[:-1] == load_preset("digits")
    config = Resolver(layers).resolve(typed.parse_arm("mae"), 3, 0)
    assert config.pretrain.blr == 1e-3


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c"])
def test_an_unreadable_suite_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"suite\.yaml"):
        load_yaml(path)


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_resolves_for_every_arm(preset: str) -> None:
    arms = "mae,mae+mto,simmim,simmim+mto,data2vec,data2vec+mto"
    for config in resolve(arms, preset=preset):
        assert config.model.image_size % config.model.patch_size == 0
        assert config.model.width % config.model.heads == 0


@pytest.mark.parametrize(
    ("method", "preset", "override", "section", "expected"),
    [
        ("data2vec", "imagenet", "pretrain.blr=3e-4", "pretrain", 3e-4 * 2048 / 256),
        ("data2vec", "imagenet", "data2vec.pretrain.blr=3e-4", "pretrain", 3e-4 * 2048 / 256),
        ("mae", "digits", "finetune.blr=1e-2", "finetune", 1e-2 * 30 / 256),
        ("mae", "digits", "finetune.lr=1e-2", "finetune", 1e-2),
    ],
)
def test_a_rate_that_is_set_later_wins_over_its_rival(
    method: str, preset: str, override: str, section: str, expected: float
) -> None:
    (config,) = resolve(method, override, preset=preset)
    recipes = {"pretrain": config.pretrain, **dict(config.tasks)}
    assert peak_lr(recipes[section]) == pytest.approx(expected)


def test_a_warm_up_in_epochs_wins_over_an_earlier_share() -> None:
    (config,) = resolve("mae", "pretrain.warmup_epochs=3")
    assert warmup(config.pretrain) == 3


@pytest.mark.parametrize(
    ("preset", "method", "run", "fixed"),
    [
        ("imagenet", "mae", 800, 40),
        ("imagenet", "simmim", 800, 10),
        ("imagenet", "data2vec", 800, 10),
        ("imagenet", "bootmae", 800, 40),
        ("imagenet", "conmim", 1600, 10),
        ("imagenet-l", "data2vec", 800, 80),
        ("imagenet-l", "mae", 800, 40),
    ],
)
def test_the_scaled_recipe_is_the_papers_at_their_own_length(
    preset: str, method: str, run: int, fixed: int
) -> None:
    layers = load_preset(preset)
    recipe = load_recipe("scaled", merged(layers))
    (arm,) = typed.parse_arms(method)
    for epochs, share in ((run, 1), (run // 8, 1 / 8)):
        scaled = Resolver((*layers, recipe)).resolve(arm, epochs, 0)
        assert warmup(scaled.pretrain) == pytest.approx(fixed * share)
    plain = Resolver(layers).resolve(arm, run, 0)
    assert warmup(plain.pretrain) == fixed
    assert dataclasses.replace(scaled.pretrain, warmup_share=0, epochs=run) == plain.pretrain


def test_a_text_setting_can_be_emptied() -> None:
    (config,) = resolve("mae", "finetune.augment.auto_augment=", preset="imagenet")
    assert config.task("finetune").augment.auto_augment == ""


def test_a_misspelt_section_inside_a_methods_own_is_an_error() -> None:
    layer = typed.parse_overrides(["mae.pretrian.blr=9"])
    with pytest.raises(UsageError, match=r"'mae\.pretrian'. Did you mean 'mae\.pretrain'"):
        check_keys(layer, "the command")


def test_an_empty_section_is_no_section_and_a_value_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("extends: digits\nmae:\npretrain:\n")
    config = Resolver(load_yaml(path)).resolve(typed.parse_arm("mae"), 3, 0)
    assert config == Resolver(load_preset("digits")).resolve(typed.parse_arm("mae"), 3, 0)
    path.write_text("mae: 3\n")
    with pytest.raises(UsageError, match=r"'mae' in 'suite\.yaml' must hold settings, not 3"):
        load_yaml(path)


def test_a_path_alone_is_a_folder_of_images(tmp_path: Path, monkeypatch) -> None:
    for name in ("mine", "digits", "torch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = ("folder", str(tmp_path / "mine"))
    for text in ("mine", "./mine", f"{tmp_path}/mine", "folder:mine"):
        assert typed.parse_data(text) == wanted
    assert typed.parse_data("digits") == ("digits", "")
    assert typed.parse_data("torch/cifar10:mine") == ("torch/cifar10", str(tmp_path / "mine"))


def test_a_data_set_has_one_preset_by_either_name() -> None:
    for name in ("cifar10", "cifar100"):
        presets = {registry.dataset(n).preset for n in (name, f"torch/{name}")}
        assert presets == {registry.dataset(f"torch/{name.upper()}").preset} == {"cifar"}
    assert registry.dataset("torch/stl10").preset == "own"


@pytest.mark.parametrize("typed", ["mae+mto(spa,recal)", "mae+mto:recal.spa"])
def test_the_baseline_is_named_as_methods_are(typed: str) -> None:
    wish = Wish(methods=f"mae,{typed}", epochs="1", seeds="1", baseline=typed)
    assert plan_wish(wish).study.baseline == "mae+mto(recal,spa)"
    with pytest.raises(UsageError, match=r"unknown baseline 'mae\+mto'"):
        plan_wish(dataclasses.replace(wish, baseline="mae+mto"))


def test_a_stored_runs_images_are_where_its_own_data_set_lies(tmp_path: Path) -> None:
    assert typed.place_of("digits", None) == typed.place_of("digits", "digits") == ""
    assert typed.place_of("folder", str(tmp_path)) == str(tmp_path)
    for name, asked in (("folder", "folder:DIR"), ("npz", "npz:FILE")):
        with pytest.raises(UsageError, match=f"images are needed here: add --data {asked}"):
            typed.place_of(name, None)
    with pytest.raises(UsageError, match="--data digits is not the data set of the run, 'folder'"):
        typed.place_of("folder", "digits")
