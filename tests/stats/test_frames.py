"""Results of runs as frames, cell by cell, with what was not measured left open."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from bench.stats import frames
from bench.stats.analysis import Analysis
from bench.store.record import Record
from tests.support.synthetic import record

PLAN = Analysis(secondary=("probe_top1",), recipe="planned", ids=("first", "second"))


def tidy(*records: Record, analysis: Analysis = PLAN) -> pd.DataFrame:
    return frames.tidy((vars(r) for r in records), analysis)


def run(seed: int = 0, score: float = 80.0, **values: Any) -> Record:
    return record("mae", 100, seed, score, **values)


def test_no_runs_give_an_empty_frame() -> None:
    assert tidy().empty


def test_a_run_given_twice_counts_once_and_the_order_of_runs_does_not_matter() -> None:
    one, two = run(0), run(1)
    assert tidy(two, one, two).equals(tidy(one, two))
    assert tidy(two, one)["seed"].tolist() == [0, 1]


def test_lines_are_numbered_from_0_in_the_order_of_cells() -> None:
    found = tidy(run(1, run_id="a"), run(0, run_id="b"))
    assert found.index.tolist() == [0, 1]
    assert "index" not in found
    assert found["run_id"].tolist() == ["b", "a"]


def test_what_no_run_measured_is_open() -> None:
    found = tidy(run(scores={"finetune_top1": 80.0}, flops=None, data_wait_share=None))
    assert found[["probe_top1", "flops", "data_wait_share"]].isna().all(axis=None)
    assert found["finetune_top1"].tolist() == [80.0]
    assert found["flops"].dtype == float


def test_scores_of_further_tasks_and_seconds_have_columns() -> None:
    found = tidy(run(scores={"finetune_top1": 80, "more_top1": 70}, seconds={"finetune": 3.0}))
    assert found["more_top1"].tolist() == [70.0]
    assert found["more_top1"].dtype == float
    assert found["finetune_s"].tolist() == [3.0]
    assert "scores" not in found
    assert "seconds" not in found


def test_a_score_that_is_not_finite_makes_a_failed_run() -> None:
    found = tidy(run(0), run(1, math.nan), run(2, status="failed", failure="oom"))
    assert found["ok"].tolist() == [True, False, False]
    assert found["failure"].tolist() == ["", "nan", "oom"]
    assert found["finetune_top1"].notna().tolist() == [True, False, False]


def test_a_failed_run_keeps_its_own_reason() -> None:
    found = tidy(run(0, math.nan, status="failed", failure="oom"))
    assert found["failure"].tolist() == ["oom"]


def test_a_run_that_failed_before_its_recipe_was_known_has_the_plans() -> None:
    assert tidy(run(0, recipe=""), run(1, recipe="own"))["recipe"].tolist() == ["own", "planned"]


def test_a_baseline_that_was_asked_for_stands_for_every_arm() -> None:
    assert set(tidy(run(), analysis=replace(PLAN, baseline="simmim"))["base_arm"]) == {"simmim"}
    assert set(tidy(run())["base_arm"]) == {"mae"}


def test_of_a_cell_under_two_ids_the_planned_one_is_used() -> None:
    found = tidy(run(run_id="first"), run(run_id="other"), run(1, run_id="third"))
    assert found["run_id"].tolist() == ["first", "third"]
    assert found["in_plan"].tolist() == [True, False]
    assert found["ambiguous"].tolist() == [False, False]


@pytest.mark.parametrize("ids", [("first", "second"), ("other", "another")])
def test_of_two_planned_ids_or_of_none_no_run_is_used(ids: tuple[str, str]) -> None:
    found = tidy(*(run(run_id=name) for name in ids), run(1))
    assert found["ambiguous"].tolist() == [True, True, False]
    assert found["run_id"].nunique() == 3
    assert frames.cells(found)["seed"].tolist() == [1]


def test_repeats_of_a_seed_are_averaged_into_one_cell() -> None:
    repeats = [run(0, 80.0, repeat=0), run(0, 84.0, repeat=1, run_id="b", flops=3e11), run(1, 70.0)]
    found = frames.cells(tidy(*repeats))
    assert found["finetune_top1"].tolist() == [82.0, 70.0]
    assert found["repeats"].tolist() == [2, 1]
    assert found["flops"].tolist() == [2e11, 1e11]
    assert found["ok"].tolist() == [True, True]


def test_a_repeat_that_failed_fails_its_seed() -> None:
    repeats = [run(0, 80.0), run(0, 84.0, repeat=1, run_id="b", status="failed"), run(1, 70.0)]
    found = frames.cells(tidy(*repeats))
    assert found["ok"].tolist() == [False, True]
    assert found["finetune_top1"].isna().tolist() == [True, False]


def test_an_endpoint_that_a_finished_cell_lacks_is_no_line_and_a_failed_cell_is_one() -> None:
    runs = [run(0), run(1, scores={"finetune_top1": 81.0}), run(2, status="failed")]
    lines = frames.long(frames.cells(tidy(*runs)))
    held = [(str(r["endpoint"]), int(r["seed"])) for r in lines.to_dict("records")]
    assert held == [("finetune_top1", s) for s in (0, 1, 2)] + [("probe_top1", s) for s in (0, 2)]


def test_an_endpoint_that_nobody_measured_is_left_out() -> None:
    lines = frames.long(frames.cells(tidy(run(0, scores={"finetune_top1": 80.0}), run(1))))
    assert set(lines["endpoint"]) == {"finetune_top1", "probe_top1"}
    alone = {"finetune_top1": 80.0}
    failed = run(1, scores=alone, status="failed")
    lone = frames.long(frames.cells(tidy(run(0, scores=alone), failed)))
    assert set(lone["endpoint"]) == {"finetune_top1"}


def test_the_accuracy_is_that_of_the_seeds_that_finished() -> None:
    runs = [run(0, 80.0), run(1, 84.0), run(2, status="failed")]
    (row, *_) = frames.accuracy(frames.long(frames.cells(tidy(*runs)))).to_dict("records")
    assert (row["mean"], row["n_ok"], row["n"]) == (82.0, 2, 3)
    assert row["sd"] == pytest.approx(math.sqrt(8))


def test_costs_are_medians_an_epoch_of_the_cells_that_finished() -> None:
    rates = {"images_per_s": 10.0, "peak_memory_mib": 5.0}
    runs = [run(s, flops=f, pretrain_s=None, **rates) for s, f in enumerate((1e9, 2e9, 9e9))]
    failed = run(3, flops=7e11, status="failed")
    (row,) = frames.costs(frames.cells(tidy(*runs, failed))).to_dict("records")
    assert row["flops_per_epoch"] == 2e7
    assert math.isnan(row["pretrain_s_per_epoch"])
    assert row["images_per_s"] == 10.0
