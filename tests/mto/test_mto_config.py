"""Settings: switching terms singly, labels, and what is refused before a run is queued."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest

from bench.errors import UsageError
from bench.plan.loading import load_section
from mto.config import OURS, TERMS, MTOConfig


def test_the_default_has_no_label_and_every_other_set_of_terms_has_one():
    assert MTOConfig().label == ""
    assert MTOConfig.only(["spa", "recal"]).label == "(recal,spa)"
    assert MTOConfig.only([]).label == "(off)"
    assert MTOConfig.only(MTOConfig().terms).label == ""


def test_all_stands_for_every_part():
    config = MTOConfig.only(["all"])
    assert config.terms == TERMS
    assert config == MTOConfig.only(TERMS)
    assert config.label == "(all)"
    assert MTOConfig.only(["all", "share"]).label == "(all,share)"
    assert MTOConfig.only(TERMS[1:]).label == "(dist,recal,spa,e,r)"
    with pytest.raises(UsageError, match="typo"):
        MTOConfig.only(["all", "typo"])


@pytest.mark.parametrize("term", TERMS)
def test_each_term_can_be_alone(term):
    config = MTOConfig.only([term])
    assert config.terms == (term,)
    assert config.acts == (term != "init")
    assert (
        load_section(MTOConfig, {f.name: getattr(config, f.name) for f in fields(config)}, "mto")
        == config
    )


def test_a_term_that_is_on_keeps_its_weight_and_one_that_is_off_gets_a_starting_one():
    config = MTOConfig(lambda_spa=0.7, lambda_e=0.0).with_terms(["spa", "e"])
    assert (config.lambda_spa, config.lambda_e) == (0.7, 0.1)


def test_recalibration_without_effect_is_switched_on_for_good_by_name():
    for idle in (MTOConfig(r_first=1.0), MTOConfig(r_depth=0.0), MTOConfig(recalibration="none")):
        assert not idle.recalibrates
        assert idle.with_terms(["recal"]).terms == ("recal",)


def test_unknown_terms_are_named_with_the_nearest_known_one():
    with pytest.raises(UsageError, match=r"'recall'.*mean 'recal'"):
        MTOConfig.only(["recall"])


@pytest.mark.parametrize(
    "values",
    [
        {"r_first": -0.1},
        {"r_first": 1.5},
        {"r_depth": 2},
        {"lambda_spa": -1},
        {"lambda_dist": float("nan")},
        {"tau": 0},
        {"dist_margin": 0},
        {"sample_images": 0},
        {"sample_images": 1.5},
        {"e_layers": 0},
        {"init_std": -1},
        {"sample_heads": 2},
        {"affinity": "keys"},
        {"rows": "hidden"},
        {"predict_share": 0},
        {"enter_depth": 1.1},
        {"spa_columns": "visible"},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError):
        load_section(MTOConfig, values, "mto")


def test_parts_of_our_own_come_by_name_only_and_show_in_the_label():
    assert not set(OURS) & set(MTOConfig.only(["all"]).terms)
    own = MTOConfig.only(["all", "share", "late"])
    assert own.terms == (*TERMS, *OURS)
    assert (own.predict_share, own.enter_depth) == (0.5, 0.5)
    assert MTOConfig(predict_share=0.25).label == "(recal,share)"
    assert MTOConfig.only(["late"]).acts


ALL = {"rows": "all", "keep_self": False}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("recalibrates", {}, True),
        ("recalibrates", {"recalibration": "exclude"}, True),
        ("recalibrates", {"recalibration": "none"}, False),
        ("recalibrates", {"r_first": 1.0}, False),
        ("recalibrates", {"r_depth": 0.0}, False),
        ("recalibrates", {"r_first": 0.99, "r_depth": 0.01}, True),
        ("closes", ALL, True),
        ("closes", {}, False),
        ("closes", {**ALL, "rows": "visible"}, False),
        ("closes", {**ALL, "rows": "masked"}, False),
        ("closes", {**ALL, "keep_self": True}, False),
        ("closes", {**ALL, "recalibration": "exclude"}, False),
        ("closes", {**ALL, "recalibration": "none"}, False),
        ("shuts_spa_out", {"rows": "visible"}, True),
        ("shuts_spa_out", {"rows": "all", "spa_rows": "masked"}, True),
        ("shuts_spa_out", {"rows": "masked", "spa_rows": "masked"}, True),
        ("shuts_spa_out", {"rows": "masked"}, False),
        ("shuts_spa_out", {"spa_form": "row_entropy"}, False),
        ("shuts_spa_out", {"spa_form": "row_entropy", "rows": "all"}, False),
        ("reads_attention", {}, False),
        ("reads_attention", {"lambda_spa": 0.1}, True),
        ("reads_attention", {"lambda_e": 0.1}, True),
        ("reads_attention", {"lambda_r": 0.1}, True),
        ("reads_attention", {"lambda_dist": 0.1}, False),
        ("leaves_out", {}, False),
        ("leaves_out", {"predict_share": 0.99}, True),
        ("leaves_out", {"enter_depth": 0.01}, True),
    ],
)
def test_what_a_setting_brings_about(name, values, expected):
    assert getattr(MTOConfig(**values), name) is expected


@pytest.mark.parametrize("name", ["spa_layers", "e_layers", "rank_layers", "sample_heads"])
def test_no_more_layers_and_heads_are_read_than_there_are(name):
    heads = {"heads": "each"} if name == "sample_heads" else {}
    config = MTOConfig(**{name: 4}, **heads)
    layers, most = (9, 3) if name == "sample_heads" else (3, 9)
    config.check_layers(4, 4)
    what = "heads" if name == "sample_heads" else "layers that carry mask tokens"
    with pytest.raises(UsageError, match=rf"mto.{name}=4, but there are 3 {what}. Set at most"):
        config.check_layers(layers, most)


def test_what_is_on_or_not_its_default_is_named():
    switched = MTOConfig(tau=0.2).switched
    assert switched["tau"] == 0.2
    assert {"r_first", "recalibration", "rows", "keep_self"} <= switched.keys()
    assert "rows" not in MTOConfig.only(["init"]).switched
    assert not {"init", "lambda_spa", "e_layers", "predict_share"} & switched.keys()
    assert MTOConfig(lambda_spa=0.5).switched["lambda_spa"] == 0.5


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        MTOConfig().tau = 2.0


def test_every_setting_is_documented():
    for f in fields(MTOConfig):
        assert f"\n        {f.name}: " in MTOConfig.__doc__


def test_settings_and_schedules_need_no_torch():
    code = "import sys, mto.config, mto.depth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
