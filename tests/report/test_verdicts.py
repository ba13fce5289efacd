"""What a report claims of a comparison, in words: savings, censoring, pilots, significance."""

from __future__ import annotations

import dataclasses

import pytest

from bench.report import write as report
from tests.support.synthetic import PLAN, RISING, runs, target


def test_epochs_without_time_is_no_saving_of_time() -> None:
    slow = [
        dataclasses.replace(r, pretrain_s=r.epochs * 9.0) if r.plugins else r for r in runs(RISING)
    ]
    assert target(slow)["verdict"] == "saves epochs, but costs time"
    untimed = [dataclasses.replace(r, pretrain_s=None) for r in runs(RISING)]
    assert target(untimed)["verdict"] == "saves epochs; time not measured"


def test_an_arm_against_itself_has_no_difference() -> None:
    row = target(runs({"mae": [80, 81, 82], "mae@again": [80, 81, 82]}, noise=0.0))
    assert (row["rho"], row["p"]) == (1.0, 1.0)
    assert row["verdict"] == "no difference found"


@pytest.mark.parametrize(
    ("curves", "said", "verdict"),
    [
        ([80.6, 80.6, 80.6], "curve flat: not defined", "curve flat: not defined"),
        ([77, 78, 79], "target missed, at most ×0.50", "needs more epochs"),
        ([81.9, 82.5, 83], "at least ×2.00", "saves epochs and time"),
    ],
)
def test_censoring_in_words(curves: list[float], said: str, verdict: str) -> None:
    base = [80.0, 80.0, 80.0] if "flat" in said else [80, 81, 82]
    row = target(runs({"mae": base, "mae+mto": curves}))
    assert (row["rho_words"], row["verdict"]) == (said, verdict)


def test_an_interval_beyond_the_budgets_is_not_bounded() -> None:
    both = target(runs({"mae": [80, 81, 82], "mae+mto": [80, 81, 82]}, noise=8.0))
    assert both["rho_words"] == "curve flat: not defined"
    calm = runs({"mae": [80, 81, 82]}, noise=0.0)
    wild = [r for r in runs({"mae": [80, 81, 82], "mae+mto": [80, 81, 82]}, noise=8.0) if r.plugins]
    assert target(calm + wild)["rho_words"] == "×1.00 (not bounded)"


def test_a_significant_dip_is_told() -> None:
    records = runs({"mae": [80, 81, 82], "mae+mto": [81.5, 80.5, 82.5]})
    assert target(records)["monotone"] is False
    assert target(records)["rho_words"].endswith(", not monotone")
    noise = runs({"mae": [80, 81, 82], "mae+mto": [81.02, 80.98, 82.5]})
    assert target(noise)["monotone"] is True


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_below_five_seeds_nothing_is_claimed(n: int) -> None:
    records = runs(RISING, seeds=range(n))
    rows = report.results(report.prepare(records))["targets"]
    assert {row["verdict"] for row in rows} == {f"pilot: no claim ({n} of 5 seeds)"}
    assert "saves" not in report.summary(report.prepare(records))


def test_one_seed_has_no_spread_and_no_interval() -> None:
    row = target(runs(RISING, seeds=[0]))
    assert row["rho_words"] == "×1.55 (not bounded)"
    assert row["p"] is None
    assert "±" not in report.summary(report.prepare(runs(RISING, seeds=[0])))


def test_both_directions_need_significance_over_all_comparisons() -> None:
    """Among many harmless arms an interval just below 1 is no finding either."""
    slow = {"mae": [80, 81, 82], "mae+mto": [79.74, 80.74, 81.74]}
    assert target(runs(slow))["verdict"] == "needs more epochs"
    others = {f"mae+mto@{i}": [80, 81, 82] for i in range(12)}
    row = target(runs(slow | others), arm="mae+mto")
    assert row["rho_high"] < 1
    assert row["verdict"].startswith("not significant over")


def test_what_runs_noted_of_their_images_is_a_warning() -> None:
    notes = ["2 unreadable training image(s) replaced: cat/3.png", "a note of no concern"]
    records = [dataclasses.replace(r, notes=notes) for r in runs(RISING)]
    shown = report.summary(report.prepare(records))
    assert shown.count("2 unreadable training image(s) replaced: cat/3.png") == 1
    assert "no concern" not in shown


def test_what_the_plan_and_the_runs_noted_of_their_images_is_said_once() -> None:
    note = "2 training file(s) left out: 2 .txt"
    records = [dataclasses.replace(r, notes=[note]) for r in runs(RISING)]
    planned = {**PLAN, "warnings": ["what the plan alone says", note]}
    found = report.prepare(records, planned).warnings
    assert found == ["what the plan alone says", f"digits: {note}"]
