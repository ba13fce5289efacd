"""Gates: what they ask, what bars them, what is refused before it is computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.errors import GateError, UsageError
from bench.plan.study import Study
from bench.plan.wish import Wish, plan_wish
from bench.report import write as report
from bench.store.record import Record
from tests.support.synthetic import PLAN, RISING, runs


@pytest.mark.parametrize(
    "expression",
    [
        "rho(mae+mto)>=1.5",
        "rho_low(mae+mto) > 1",
        "delta_low(mae+mto, epochs=200) > 0",
        "verdict(mae+mto)==refuted",
        "delta(mae+mto, epochs=200) >= 0.5",
        "accuracy(mae, epochs=400, endpoint=probe_top1) > 71.9",
        "saved_share(mae+mto, target_epochs=400)>0.2",
        "rho_time(mae+mto)<=1.5",
    ],
)
def test_gates_that_hold(expression: str) -> None:
    assert "holds" in report.gate(expression, report.results(report.prepare(runs(RISING))))


@pytest.mark.parametrize(
    ("expression", "error", "said"),
    [
        ("rho(mae+mto)>=2", GateError, "does not hold: 1.554"),
        ("rho(simmim+mto)>=1", GateError, "nothing measured"),
        ("rho(mae+mto", UsageError, "is not a gate"),
        ("rho(mae+mto)=>1.5", UsageError, "is not a gate"),
        ("rho(mae+mto)", UsageError, "is not a gate"),
        ("verdict(mae+mto)==proven", UsageError, "is not a gate"),
        ("verdict(mae+mto)==shown", GateError, "does not hold: refuted"),
        ("noninferior(mae+mto)", GateError, "does not hold: 0"),
        ("rho(mae+mto)>=1.5.2", UsageError, "is not a gate"),
        ("roh(mae+mto)>=1", UsageError, "Did you mean 'rho'"),
        ("delta(mae+mto, epoch=200)>0", UsageError, "Did you mean 'epochs'"),
        ("delta(mae+mto, target_epochs=200)>0", UsageError, "delta takes epochs=E"),
        ("rho(mae+mto, epochs=200)>0", UsageError, "rho takes target_epochs=E"),
    ],
)
def test_gates_that_do_not(expression: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        report.gate(expression, report.results(report.prepare(runs(RISING))))


BEYOND = runs({"mae": [80, 81, 82], "mae+mto": [81.9, 82.5, 83]})
MISSED = runs({"mae": [80, 81, 82], "mae+mto": [77, 78, 79]})
FLAT = runs({"mae": [80, 80, 80], "mae+mto": [80.5, 81.5, 82.5]})
WIDE = runs({"mae": [80, 81, 82]}, noise=0.0) + [
    r for r in runs({"mae": [80, 81, 82], "mae+mto": [80, 81, 82]}, noise=8.0) if r.plugins
]
PILOT = runs(RISING, seeds=range(2))
UNMATCHED = [replace(r, digests={**r.digests, "mask": r.arm}) for r in runs(RISING)]
UNFAIR = {**PLAN, "warnings": ["unequal tuning: mae+mto had 8 trials, mae 4"]}
DELTA = "delta(mae+mto, epochs=200)>=0.1"


@pytest.mark.parametrize(
    ("records", "plan", "expression", "said"),
    [
        (BEYOND, None, "rho(mae+mto)>=1.5", "only a bound is known"),
        (MISSED, None, "rho(mae+mto)>=0.1", "only a bound is known"),
        (WIDE, None, "rho(mae+mto)>=0.5", "open on that side"),
        (WIDE, None, "rho_low(mae+mto)>=0", "open below"),
        (FLAT, None, "rho_low(mae+mto)>=0.1", "curve flat"),
        (FLAT, None, "noninferior(mae+mto)", "curve flat"),
        *((PILOT, None, text, "--allow-pilot") for text in ("rho(mae+mto)>=0.1", DELTA)),
        (PILOT, None, "accuracy(mae, epochs=200)>=0", "pilot: no claim"),
        *((UNMATCHED, None, text, "not matched") for text in ("rho_low(mae+mto)>=0.1", DELTA)),
        *((runs(RISING), UNFAIR, text, "unequal tuning") for text in ("rho(mae+mto)>=0.1", DELTA)),
    ],
)
def test_what_bars_a_claim_fails_a_gate(
    records: list[Record], plan: dict[str, Any] | None, expression: str, said: str
) -> None:
    values = report.results(report.prepare(records, plan))
    with pytest.raises(GateError, match=said):
        report.gate(expression, values)


def test_a_gate_on_the_end_of_rho_is_adjusted_as_its_claim_is() -> None:
    """Among many variants one is above 1 by chance."""
    means: dict[str, list[float]] = {"mae": [80, 81, 82], "mae+mto": [80, 81.35, 82.05]}
    means |= {f"mae+x{i}": [80, 81, 82] for i in range(9)}
    values = report.results(report.prepare(runs(means, range(8), noise=0.25, rng_seed=1)))
    (row,) = (r for r in values["targets"] if r["primary"] and r["arm"] == "mae+mto")
    assert row["rho_low"] > 1
    with pytest.raises(GateError, match="not significant over 20 comparisons"):
        report.gate("rho_low(mae+mto)>1", values)
    assert "holds" in report.gate("rho_low(mae+mto)<1.5", values)


def test_no_gate_stands_on_the_runs_that_a_divergence_left() -> None:
    records = [
        replace(r, status="failed", failure="non-finite", scores={})
        if (r.arm, r.epochs, r.seed) == ("mae+mto", 200, 1)
        else r
        for r in runs(RISING, range(6))
    ]
    values = report.results(report.prepare(records))
    with pytest.raises(GateError, match="1 of the variant's runs diverged"):
        report.gate("delta_low(mae+mto, epochs=200)>0", values)
    assert "holds" in report.gate("delta(mae+mto, epochs=200)<5", values)
    assert "holds" in report.gate("delta_low(mae+mto, epochs=100)>0", values)


def test_a_pilot_may_be_gated_by_those_who_know() -> None:
    pilot = report.results(report.prepare(PILOT))
    assert "holds" in report.gate(DELTA, pilot, allow_pilot=True)
    unmatched = report.results(report.prepare(UNMATCHED[: len(UNMATCHED) // 2]))
    with pytest.raises(GateError):
        report.gate(DELTA, unmatched, allow_pilot=True)


def test_half_the_epochs_can_be_gated() -> None:
    better = report.results(report.prepare(runs({"mae": [80, 81, 82], "mae+mto": [81.2, 82, 83]})))
    assert "holds" in report.gate("noninferior(mae+mto)", better)
    assert "holds: shown" in report.gate("verdict(mae+mto)==shown", better)
    flat = report.results(report.prepare(runs({"mae": [80, 80, 80], "mae+mto": [80, 80, 80]})))
    assert "holds" in report.gate("verdict(mae+mto)==not measurable", flat)
    with pytest.raises(GateError, match="not hold: shown"):
        report.gate("verdict(mae+mto)==not measurable", better)


def test_a_gate_on_areas_fails_where_one_budget_was_run() -> None:
    alone = runs({"mae": [80], "mae+mto": [81]}, budgets=[400])
    values = report.results(report.prepare(alone, {**PLAN, "budgets": [400], "target_epochs": 400}))
    with pytest.raises(GateError, match=r"not defined \(areas take two budgets that both arms"):
        report.gate("rauc(mae+mto)>0", values)


def planned(epochs: str, **wish: Any) -> Study:
    return plan_wish(Wish(methods="mae,mae+mto", epochs=epochs, seeds="5", **wish)).study


@pytest.mark.parametrize(
    ("epochs", "gate", "said"),
    [
        ("50,100,200,400", "rho(mae+mto, target_epochs=100)>1", "Known: 200, 400. .*--target E"),
        (
            "100,400",
            "noninferior(mae+mto)",
            "half of 400 .*: 200 among --epochs, with --target 400",
        ),
        ("100,400", "verdict(mae+mto)==shown", "it runs 100, 400. What would do: 200 among"),
        ("50,100,300,400", "verdict(mae+mto)==open", "with --target 300; --target 100.$"),
        ("100,200,300", "noninferior(mae+mto, target_epochs=300)", "150 among .*; --target 200.$"),
        ("25", "noninferior(mae+mto)", "half of 25 .* a --target whose half is among --epochs"),
        ("100", "rauc(mae+mto)>1", "areas take two budgets .* 100 alone. Add another to --epochs"),
    ],
)
def test_a_gate_that_no_result_can_meet_is_refused_before_it(
    epochs: str, gate: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        report.check_gate(gate, planned(epochs))
    assert str(refused.value).startswith(f"'{gate}': ")


@pytest.mark.parametrize(
    ("epochs", "target", "gate"),
    [
        ("50,100,200,400", None, "rho(mae+mto, target_epochs=400)>1"),
        ("50,100,200,400", 100, "rho(mae+mto, target_epochs=100)>1"),
        ("50,100,200,400", 100, "noninferior(mae+mto)"),
        ("100,400", None, "rho(mae+mto, target_epochs=100)<1"),
        ("100,400", None, "verdict(mae+mto)==not measurable"),
        ("100,200,400", None, "verdict(mae+mto, target_epochs=400)==shown"),
        ("100,400", None, "rauc(mae+mto)>1"),
        ("100", None, "delta(mae+mto, epochs=100)>0"),
        ("50,100,200,400", None, "accuracy(mae, epochs=50)>0"),
    ],
)
def test_a_gate_that_a_result_may_meet_is_taken(epochs: str, target: int | None, gate: str) -> None:
    report.check_gate(gate, planned(epochs, target=target))


def test_what_a_refusal_of_a_gate_advises_is_taken() -> None:
    for epochs, target in (("100,200,400", 400), ("50,100,300,400", 100)):
        report.check_gate("noninferior(mae+mto)", planned(epochs, target=target))


def test_budgets_of_the_plan_that_stands_count_for_a_gate_too() -> None:
    first, more = planned("200,400", target=400), planned("800")
    gate = "noninferior(mae+mto)"
    report.check_gate(gate, more, first.to_plain())
    with pytest.raises(UsageError, match="half of 800 epochs"):
        report.check_gate(gate, more)


def test_arms_with_brackets_and_commas_can_be_gated() -> None:
    records = runs({"mae": [80, 81, 82], "mae+mto(spa,e)": [80.6, 81.7, 82.3]})
    assert "holds" in report.gate(
        "rho(mae+mto(spa,e), data=digits)>=1.5", report.results(report.prepare(records))
    )
