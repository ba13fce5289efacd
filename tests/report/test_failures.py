"""Failed runs in a report: what diverged tells against an arm, the rest tells nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.errors import CODE, DATA, NODE, NON_FINITE, OOM, TIMEOUT
from bench.report import claims
from bench.report import write as report
from bench.store.record import Record
from tests.support.synthetic import PLAN, RISING, changed, record, runs, target, with_run, written


def failing(failure: str) -> list[Record]:
    """Five seeds, of which one run of the variant failed so."""
    scores = {"finetune_top1": None, "probe_top1": None}
    return with_run(runs(RISING), "mae+mto", 200, 1, status="failed", failure=failure, **scores)


def test_a_run_of_the_variant_that_diverged_did_not_reach_the_target() -> None:
    row = target(failing(NON_FINITE))
    assert (row["n"], row["failed_seeds"]) == (5, 1)
    assert row["rho"] < 1
    assert row["verdict"] == "no difference found"
    assert "4/5" in report.summary(report.prepare(failing(NON_FINITE)))
    text = written(failing(NON_FINITE), "md")
    assert "n 5/5, 1 failed" in text
    assert (
        "mae+mto on digits, 200 epochs, seed 1: failed (non-finite); it counts as not reaching"
        in text
    )


def test_a_difference_of_the_runs_that_a_divergence_left_is_not_set_apart() -> None:
    """Where it speaks for the variant; against it, it would be no better with that run."""
    said = report.results(report.prepare(failing(NON_FINITE)))
    (row,) = (
        r for r in said["differences"] if (r["endpoint"], r["epochs"]) == ("finetune_top1", 200)
    )
    assert (row["n"], row["pairs"], row["diverged"]) == (4, 5, 1)
    assert row["low"] > 0
    assert not claims.differs({**row, "n": 5})
    assert claims.differs({**row, "n": 5, "diverged": 0})
    assert claims.differs({**row, "n": 5, "low": -2.0, "high": -1.0})


@pytest.mark.parametrize("apart", [1, 5])
def test_one_run_that_diverged_does_not_shield_a_variant(apart: int) -> None:
    """Its 0 tells against the variant: it must not drown in spread what the others tell."""
    means = {"mae": [80, 81, 82], "mae+mto": [80 - apart, 81 - apart, 82 - apart]}
    records = runs(means, range(32), noise=0.5)
    for epochs in (100, 200):
        records = with_run(
            records, "mae+mto", epochs, 1, status="failed", failure=NON_FINITE, finetune_top1=None
        )
    row = target(records, {**PLAN, "seeds": list(range(32))})
    assert (row["n"], row["half"], row["verdict"]) == (32, "refuted", "needs more epochs")
    assert row["half_difference"] == pytest.approx(-1 - apart, abs=0.2)


def test_many_runs_that_diverged_are_a_refutation_by_themselves() -> None:
    records = runs({"mae": [80, 81, 82], "mae+mto": [81, 82, 83]}, range(8))
    for seed in range(7):
        records = with_run(
            records, "mae+mto", 100, seed, status="failed", failure=NON_FINITE, finetune_top1=None
        )
    row = target(records, {**PLAN, "seeds": list(range(8))})
    assert row["half"] == "refuted"


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_rise_that_few_seeds_show_is_none(left: int) -> None:
    """A saving is measured on a curve that rises; that it does is tested on half of the seeds."""
    flat = runs({"mae": [79.9, 80.0, 80.05], "mae+mto": [79.9, 80.6, 80.7]}, range(8), noise=0.3)
    for seed in range(left, 8):
        flat = with_run(flat, "mae", 100, seed, status="failed", failure=OOM, finetune_top1=None)
    assert target(flat, {**PLAN, "seeds": list(range(8)), "target_epochs": 400})["state"] == "flat"


def test_a_rise_that_was_not_measured_is_none() -> None:
    records = [
        changed(r, status="failed", failure=OOM, finetune_top1=None)
        if r.arm == "mae" and r.epochs < 400
        else r
        for r in runs(RISING)
    ]
    assert target(records, {**PLAN, "target_epochs": 400})["state"] == "flat"


@pytest.mark.parametrize("failure", [OOM, TIMEOUT, NODE, CODE, DATA, ""])
def test_a_run_that_failed_otherwise_says_nothing_of_the_variant(failure: str) -> None:
    """The answer is that of the other seeds, and the failure is told."""
    row, rest = target(failing(failure)), target([r for r in runs(RISING) if r.seed != 1])
    assert (row["n"], row["seeds"], row["failed_seeds"]) == (4, 5, 1)
    assert all(row[name] == rest[name] for name in ("rho", "rho_low", "rho_high", "p"))
    assert row["verdict"] == "pilot: no claim (4 of 5 seeds)"
    text = written(failing(failure), "md")
    assert "n 4/5, 1 failed" in text
    assert f"seed 1: failed ({failure or 'failed'}); that says nothing of the arm" in text


def test_a_score_that_is_not_a_number_is_a_failed_run() -> None:
    broken = with_run(runs(RISING), "mae+mto", 200, 1, finetune_top1=math.nan)
    assert target(broken)["failed_seeds"] == 1
    assert "failed (nan)" in report.results(report.prepare(broken))["warnings"][0]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (NON_FINITE, "no claim: no seed has finished runs of both arms at equal epochs"),
        (CODE, "nothing can be said: no seed has the baseline at this budget and the variant"),
    ],
)
def test_a_variant_whose_runs_all_failed_is_not_called_unmatched(failure: str, words: str) -> None:
    gone = [
        replace(r, status="failed", failure=failure, scores={}) if r.arm == "mae+mto" else r
        for r in runs(RISING)
    ]
    row = target(gone)
    assert row["half_words"] == words
    assert row["failed_seeds"] == row["seeds"] == 5
    assert "not matched" not in written(gone, "md")


def test_a_failed_baseline_leaves_its_pair_out() -> None:
    failed = with_run(
        runs(RISING), "mae", 200, 1, status="failed", finetune_top1=None, probe_top1=None
    )
    row = target(failed)
    assert (row["n"], row["seeds"]) == (4, 5)
    said = report.results(report.prepare(failed))["warnings"][0]
    assert said.endswith("it is the baseline, so its seed has no pair at these epochs")
    assert row["verdict"] == "pilot: no claim (4 of 5 seeds)"


def test_a_seed_with_a_failed_repeat_counts_as_failed() -> None:
    extra = record("mae+mto", 200, 0, None, repeat=1, status="failed", run_id="again")
    assert target([*runs(RISING), extra])["failed_seeds"] == 1
