"""Several settings of one plug-in side by side: typed, resolved, named, stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.errors import UsageError
from bench.plan import fairness, typed
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.resolve import run_from_plain
from bench.plan.study import plain_config
from bench.plan.typed import Wrap
from tests.conftest import tiny_study

FOUR = (
    "simmim,simmim+mto(recal,spa),simmim+mto(recal,spa,rows=all),"
    "simmim+mto(keep_self=true,rows=visible,recal,spa)"
)


def configs(methods: str, *more: str) -> list[Any]:
    return [cell.config for cell in tiny_study(methods, more=more).cells]


def arms(methods: str, *more: str) -> list[str]:
    return [config.arm for config in configs(methods, *more)]


def test_arms_of_one_study_differ_in_their_own_settings() -> None:
    found = configs(FOUR)
    assert [c.arm for c in found] == [
        "simmim",
        "simmim+mto(recal,spa)",
        "simmim+mto(recal,spa,rows=all)",
        "simmim+mto(recal,spa,rows=visible,keep_self=true)",
    ]
    settings = [c.plugins[0][1] for c in found[1:]]
    assert [(s.rows, s.keep_self) for s in settings] == [
        ("masked", False),
        ("all", False),
        ("visible", True),
    ]
    assert {s.terms for s in settings} == {("recal", "spa")}
    assert fairness.check(found, {}) == []
    assert len({pretrain_id(c) for c in found}) == len({cell_id(c) for c in found}) == 4


@pytest.mark.parametrize(
    ("dotted", "wrap"),
    [
        ("mto:recal.rows=all", Wrap("mto", ("recal",), (("rows", "all"),))),
        ("mto:r_depth=0.25.rows=all", Wrap("mto", None, (("r_depth", "0.25"), ("rows", "all")))),
        ("mto:r_depth=.5.e", Wrap("mto", ("e",), (("r_depth", ".5"),))),
        (
            "mto(init_std=1e+1, rows=all)",
            Wrap("mto", None, (("init_std", "1e+1"), ("rows", "all"))),
        ),
        ("mto()", Wrap("mto", ())),
        ("mto", Wrap("mto")),
    ],
)
def test_a_point_before_a_letter_separates(dotted: str, wrap: Wrap) -> None:
    assert typed.parse_arm(f"mae+{dotted}+null") == typed.Arm("mae", (wrap, Wrap("null")))


def test_they_override_the_layers_for_one_arm_and_show_only_what_differs() -> None:
    layers = ("mto.rows=masked", "simmim.mto.tau=0.5")
    found = configs("simmim+mto,simmim+mto(rows=masked,tau=0.25,r_depth=1)", *layers)
    assert [c.arm for c in found] == ["simmim+mto", "simmim+mto(tau=0.25)"]
    assert [c.plugins[0][1].rows for c in found] == ["masked", "masked"]


def test_what_is_equal_is_one_arm_however_it_is_typed() -> None:
    same = ("recal,spa,tau=1", "tau=1,spa,recal", "spa,recal,lambda_spa=0.1,tau=1.0")
    assert arms(",".join(f"mae+mto({text})" for text in same)) == ["mae+mto(recal,spa,tau=1)"]
    assert arms("mae+mto(lambda_spa=0.1),mae+mto(recal,spa)") == ["mae+mto(recal,spa)"]
    assert arms("mae+mto,mae+mto(tau=0.1)") == ["mae+mto"]


@pytest.mark.parametrize("layer", ["mto.rows=visible", "mto.lambda_spa=0.7", "mto.r_first=1"])
def test_a_name_typed_again_is_the_same_arm(layer: str) -> None:
    once = configs("mae+mto(recal,lambda_spa=0.2,rows=all,tau=0.125,spa_layers=2)", layer)
    assert configs(once[0].arm, layer) == once


def test_a_plug_in_without_terms_has_settings_too() -> None:
    assert arms("mae+null,mae+null(draw=2),mae+null+mto:rows=visible@again") == [
        "mae+null",
        "mae+null(draw=2)",
        "mae+null+mto(rows=visible)@again",
    ]


def test_the_name_survives_storage() -> None:
    for config in configs(f"{FOUR},mae+null(draw=2)+mto(rows=all,r_depth=0.123456789)"):
        plain = json.loads(json.dumps(plain_config(config)))
        assert ("own" in plain) == ("=" in config.arm)
        again = run_from_plain(plain)
        assert (again, again.arm) == (config, config.arm)
        assert cell_id(again) == cell_id(config)


def test_many_settings_still_make_a_folder_name() -> None:
    everything = "tau=0.2,sample_images=0.5,dist_margin=2,e_layers=2,rank_margin=0.25,init_std=0.5"
    one, two = configs(f"mae+mto({everything},rows=all),mae+mto({everything},rows=masked)")
    assert cell_id(one) != cell_id(two)
    assert max(len(cell_id(one)), len(cell_id(two))) < 160


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("mae+mto(recal,row=all)", "unknown setting 'mto.row'. Did you mean 'mto.rows'"),
        ("mae+mto(recal,rows=al)", "unknown value of mto.rows 'al'. Did you mean 'all'"),
        ("mae+mto(r_depth=2)", "mto.r_depth=2.0 must lie in [0, 1]"),
        ("mae+mto:keep_self=maybe", "mto.keep_self='maybe' is not a valid bool"),
        ("mae+mto(sample_heads=2)", "mto.sample_heads needs mto.heads=each"),
        ("mae+mto(rows=all,rows=masked)", "sets a setting of 'mto' twice"),
        ("mae+mto(rows=all", "cannot read plug-in 'mto(rows=all'"),
        ("mae+mto(=all)", "with settings mae+mto(TERM,KEY=VALUE)"),
        ("mae+mto:r_depth=1.e-3", "cannot read plug-in 'mto:r_depth=1.e-3'"),
        ("mae+mto(recall,rows=all)", "unknown mto term 'recall'. Did you mean 'recal'"),
        ("mae+null(spa,draw=2)", "plug-in 'null' has no terms"),
    ],
)
def test_they_are_held_to_the_same_rules(methods: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        configs(methods)
    assert message in str(caught.value)


def test_two_arms_under_one_name_are_refused() -> None:
    found = configs("mae+mto,mae+mto(init)", "mto.r_first=1", "mto.init=distinct")
    with pytest.raises(UsageError, match=r"both called mae\+mto\(init\).*mae\+mto\(init\)@other"):
        fairness.check(found, {})
