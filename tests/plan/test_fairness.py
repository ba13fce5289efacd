from __future__ import annotations

import dataclasses
import time

import pytest

from bench.errors import UsageError
from bench.plan import fairness, layers, resolve, typed
from bench.plan.study import Study, make_study
from bench.store.record import Record
from bench.store.states import FAILED
from bench.work.estimate import Speed, cost, stored_speeds
from tests.conftest import tiny_study


def configs(methods: str, epochs: str = "100,200", more: tuple[str, ...] = ()) -> list:
    return [c.config for c in tiny_study(methods, epochs, more=more).cells]


def test_arms_that_differ_in_the_plug_in_alone_are_fair() -> None:
    assert fairness.check(configs("mae,mae+mto,mae+mto(spa),mae@b"), {}) == []


def test_an_arm_is_what_all_its_plug_ins_make_of_it() -> None:
    bare, two = (fairness.switched_on(c) for c in configs("mae,mae+null+mto(rows=all)", "100"))
    assert bare == ""
    assert two.startswith("null (draw=1) + mto (")
    assert "rows=all" in two


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("pretrain", "weight_decay", 0.3),
        ("finetune", "lr", 0.5),
        ("data", "labels", 50),
        ("model", "depth", 3),
    ],
)
def test_an_undeclared_difference_between_arms_is_an_error(
    section: str, key: str, value: float
) -> None:
    base, variant = configs("mae,mae+mto", "100")
    if section in dict(variant.tasks):
        recipe = dataclasses.replace(variant.task(section), **{key: value})
        unfair = variant.with_task(section, recipe)
    else:
        part = dataclasses.replace(getattr(variant, section), **{key: value})
        unfair = dataclasses.replace(variant, **{section: part})
    with pytest.raises(UsageError, match=rf"{section}\.{key}"):
        fairness.check([base, unfair], {})


@pytest.mark.parametrize(
    ("methods", "epochs", "more", "message"),
    [
        ("mae,mae+disjoint", "3", (), r"epochs=3 is no multiple of 2\. The nearest is 4"),
        ("mae+disjoint", "1", (), "The nearest is 2"),
        (
            "mae+disjoint",
            "2",
            ("pretrain.batch_size=33",),
            r"batch_size=33 is no multiple",
        ),
        ("conmim+disjoint", "2", (), "conmim reads statistics over images.*Choose another method"),
    ],
)
def test_several_masks_are_counted_in_whole_passes(
    methods: str, epochs: str, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fairness.check(configs(methods, epochs, more), {})


def test_a_plan_says_that_epochs_are_effective_ones() -> None:
    (said,) = fairness.check(configs("mae,mae+disjoint", "2,4"), {})
    assert said.startswith("mae+disjoint: EFFECTIVE EPOCHS. An image under 2 masks counts 2 times")
    assert "a step of 512 is 256 images" in said
    assert fairness.check(configs("mae,mae+disjoint(masks=1)", "1,3"), {}) == []


def test_an_undeclared_difference_between_budgets_is_an_error() -> None:
    short, long = configs("mae")
    recipe = dataclasses.replace(long.pretrain, lr=short.pretrain.lr * 2)
    with pytest.raises(UsageError, match=r"mae at 100 epochs and mae at 200.*pretrain\.lr"):
        fairness.check([short, dataclasses.replace(long, pretrain=recipe)], {})


@pytest.mark.parametrize(
    ("methods", "more", "trials", "message"),
    [
        ("mae", ("pretrain.warmup_share=0", "pretrain.warmup_epochs=40"), {}, "40% of its budget"),
        ("mae", ("finetune.warmup_epochs=2",), {}, "finetune ends in its warm-up (2 of 2"),
        ("data2vec", ("data2vec.ema_span=0",), {}, "ema_decay=0.9998 does not scale"),
        ("data2vec", ("data2vec.ema_span=0.1",), {}, ""),
        ("mae", ("pretrain.schedule=multistep", "pretrain.milestones=[0.5]"), {}, ""),
        ("mae,mae+mto", (), {"mae": 4, "mae+mto": 12}, "mae+mto had 12 trials, mae 4"),
        ("mae,simmim", ("mae.finetune.lr=0.1",), {}, "2 different evaluation recipes"),
    ],
)
def test_suspicious_things_are_warned_of(
    methods: str, more: tuple[str, ...], trials: dict[str, int], message: str
) -> None:
    found = fairness.check(configs(methods, more=more), trials)
    assert (message in found[0]) if message else found == []


def test_every_unequally_tuned_variant_is_named() -> None:
    found = fairness.check(
        configs("mae,mae+mto,simmim,simmim+mto"), {"mae+mto": 1, "simmim+mto": 2}
    )
    assert [line.split()[2] for line in found if "tuning" in line] == ["mae+mto", "simmim+mto"]


def test_tuning_is_judged_against_the_baseline_that_was_named() -> None:
    arms, trials = configs("mae,mae+mto,simmim"), {"mae": 8, "mae+mto": 1, "simmim": 8}
    said = fairness.unfair(fairness.check(arms, trials, baseline="mae+mto"))
    assert said.keys() == {"mae", "simmim"}
    assert said["mae"] == "unequal tuning: mae had 8 trials, mae+mto 1"


def test_ten_thousand_cells_are_planned_and_checked_quickly() -> None:
    """A sanity bound of ten times the two seconds asked for, so that a busy machine passes."""
    started = time.process_time()
    arms = typed.parse_arms("mae,mae+mto,simmim,simmim+mto,data2vec")
    resolver = resolve.Resolver(layers.load_preset("digits"))
    cells = make_study(resolver, arms, list(range(100, 2100, 100)), list(range(100)))
    study = Study(cells=cells, preset="digits")
    assert len(study.tasks()) == 20_000
    fairness.check([c.config for c in cells], {})
    assert time.process_time() - started < 20


def record(arm: str, **values: float) -> Record:
    known = {"images_per_s": 100.0, "images_seen": 2000, "seconds": {"finetune": 30.0}, **values}
    return Record(
        run_id=f"fin-{arm}",
        pretrain_id="p",
        arm=arm,
        base_arm="mae",
        method="mae",
        data="digits",
        model=configs("mae")[0].model.name,
        epochs=2,
        seed=0,
        **known,  # type: ignore[arg-type]
    )


def test_cost_follows_from_measured_speeds() -> None:
    study = tiny_study("mae", "10,20", "2")
    speeds = stored_speeds([record("mae"), dataclasses.replace(record("mae"), status=FAILED)])
    found = cost(study.tasks(), speeds, (2, 4))
    assert found.pretrain_hours == pytest.approx(2 * 30 * 1000 / 100 * 4 / 3600)
    assert found.evaluation_hours == pytest.approx(4 * 30 * 4 / 3600)
    assert found.wall_s == pytest.approx((600 + 120) / 2)
    assert found.unknown == ()


def test_arms_without_a_measured_speed_are_named() -> None:
    found = cost(tiny_study("mae,mae+mto").tasks(), {}, (1, 1))
    assert found.unknown == ("mae", "mae+mto")
    long = {("mae", "digits", configs("mae")[0].model.name): Speed(1.0, 100.0, 5.0)}
    assert cost(tiny_study("mae", "7").tasks(), long, (8, 1)).wall_s == 700
