"""The noise floor of a study with null arms, and what report and power say of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.report import write as report
from bench.report.sections import find
from bench.stats.noise import floors
from bench.stats.power import POWER, power_of, seeds_needed, smallest_effect
from bench.store.record import Record
from tests.support.synthetic import PLAN, record

BUDGETS = (100, 200, 400)
LEVELS = {100: 60.0, 200: 70.0, 400: 74.0}
SHIFTS = {100: (3.0, -1.0, 1.0, -3.0, 0.0), 200: (1.0, -1.0, 2.0, -2.0, 0.0), 400: (0.0,) * 5}


def runs(null: str = "mae+null") -> list[Record]:
    """Five seeds whose null arm differs by :data:`SHIFTS`, and a variant that differs by 5."""
    found = []
    for epochs in BUDGETS:
        for seed in range(5):
            score = LEVELS[epochs] + (-1) ** seed
            found += [
                record("mae", epochs, seed, score),
                record(null, epochs, seed, score + SHIFTS[epochs][seed]),
                record("mae+mto", epochs, seed, score + 5),
            ]
    return found


def frame(found: list[Record]) -> dict[int, dict[str, float]]:
    made = find([vars(r) for r in found], PLAN)
    rows = floors(made.differences, made.accuracy, 0.05)
    rows = rows[rows["endpoint"] == "finetune_top1"] if len(rows) else rows
    return {row["epochs"]: row for row in rows.to_dict("records")}


def test_the_floor_is_the_sd_of_the_paired_differences() -> None:
    found = frame(runs())
    for epochs in BUDGETS:
        assert found[epochs]["sd"] == pytest.approx(np.std(SHIFTS[epochs], ddof=1))
        assert found[epochs]["mean"] == pytest.approx(LEVELS[epochs] + 0.2)
    assert found[100]["resolved"] == pytest.approx(smallest_effect(5, found[100]["sd"]))


def test_seeds_are_counted_against_the_gain_of_a_doubling() -> None:
    """10 points from 100 to 200, 4 from 200 to 400; at 400 the gain is that from before."""
    found = frame(runs())
    assert [found[e]["gain"] for e in BUDGETS] == pytest.approx([10, 4, 4])
    for epochs, gain in ((100, 10), (200, 4)):
        for ratio in (1.5, 2.0):
            n, effect = int(found[epochs][f"seeds_{ratio:g}"]), gain * math.log2(ratio)
            assert power_of(n, effect, found[epochs]["sd"]) >= POWER
            assert n == 2 or power_of(n - 1, effect, found[epochs]["sd"]) < POWER


def test_the_level_and_the_number_of_seeds_are_those_of_the_study() -> None:
    made = find([vars(r) for r in runs()], PLAN)
    (row, *_) = floors(made.differences, made.accuracy, 0.2).to_dict("records")
    assert (row["n"], row["epochs"]) == (5, 100)
    assert row["resolved"] == pytest.approx(smallest_effect(5, row["sd"], POWER, 0.2))
    assert row["seeds_1.5"] == seeds_needed(row["gain"] * math.log2(1.5), row["sd"], POWER, 0.2)
    assert row["seed_sd"] == pytest.approx(np.std([1, -1, 1, -1, 1], ddof=1))


def test_a_gain_is_that_of_a_doubling_whatever_the_step() -> None:
    """14 points from 100 to 400 epochs are 7 a doubling."""
    found = frame([r for r in runs() if r.epochs != 200])
    assert [found[e]["gain"] for e in (100, 400)] == pytest.approx([7, 7])


def test_one_pair_of_seeds_has_no_floor_and_two_have_one() -> None:
    assert frame([r for r in runs() if r.seed < 1]) == {}
    assert frame([r for r in runs() if r.seed < 2])[100]["n"] == 2


def test_a_study_without_variants_has_no_floor() -> None:
    assert frame([r for r in runs() if r.arm == "mae"]) == {}


def test_an_arm_of_another_name_sets_no_floor() -> None:
    assert frame(runs("mae+mto(init)")) == {}


@pytest.mark.parametrize(
    ("effect", "sd", "wanted"), [(1.0, 0.0, 2), (0.0, 1.0, math.nan), (1e-6, 1.0, math.inf)]
)
def test_seeds_needed_at_the_edges(effect: float, sd: float, wanted: float) -> None:
    assert seeds_needed(effect, sd) == pytest.approx(wanted, nan_ok=True)


def test_the_report_tells_the_floor_beside_the_differences() -> None:
    text = " ".join(report.summary(report.prepare(runs(), PLAN)).split())
    assert "Noise floor of mae (mae+null, fine-tune top-1): paired sd 2.24 points at 100" in text
    assert "so 5 seeds resolve" in text
    assert "Noise floor" not in report.summary(report.prepare(runs("mae+mto(init)"), PLAN))


def test_power_lets_no_variant_be_quieter_than_two_equal_arms() -> None:
    """The variant differs by exactly 5 on every seed: its own sd is 0."""
    text = report.power(report.prepare(runs(), PLAN), (5,))
    section = text.partition("### mae+mto, fine-tune")[2]
    assert "two equal arms differ by 1.581, below which it is not set" in section
    assert "paired difference is 1.581 points" in section
