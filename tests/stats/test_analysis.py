"""What a plan fixes of the analysis, and what stands where it fixes nothing."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench.stats.analysis import Analysis, endpoint_label, endpoints_of, measured_endpoints, rows_of

SECONDARY = ("probe_top1", "knn_top1", "attentive_top1", "ridge_all_top1", "knn_all_top1")


def test_without_a_plan_the_defaults_stand() -> None:
    found = Analysis.of(None)
    assert found == Analysis()
    assert (found.alpha, found.margin, found.endpoint) == (0.05, 0.1, "finetune_top1")
    assert not found.planned
    assert set(found.secondary) == set(SECONDARY)
    assert found.secondary[:2] == ("probe_top1", "knn_top1")


def test_a_plan_gives_what_it_holds_and_the_rest_is_skipped() -> None:
    plan = {"alpha": 0.1, "margin": None, "budgets": [50, 100], "recipe": "r", "cells": [1]}
    found = Analysis.of(plan)
    assert found == replace(Analysis(), alpha=0.1, budgets=(50, 100), recipe="r", planned=True)


def test_a_plan_does_not_say_of_itself_whether_it_is_one() -> None:
    assert Analysis.of({"planned": False}).planned


def test_an_endpoint_is_named_once_and_the_primary_one_first() -> None:
    assert Analysis(endpoint="b", secondary=("a", "b")).endpoints == ["b", "a"]


@pytest.mark.parametrize(
    ("budgets", "wanted"),
    [
        ([], []),
        ([100], [100]),
        ([100, 200], [200, 100]),
        ([400, 100, 200], [200, 400]),
        ([50, 100, 200, 400], [200, 400]),
    ],
)
def test_targets_where_the_plan_names_none(budgets: list[int], wanted: list[int]) -> None:
    assert Analysis().targets(budgets) == wanted
    assert Analysis(budgets=tuple(budgets)).targets([7, 8, 9]) == (wanted or [8, 9])


def test_a_planned_target_has_the_largest_budget_beside_it_once() -> None:
    planned = Analysis(budgets=(50, 100, 200, 400), target_epochs=100)
    assert planned.targets([]) == [100, 400]
    assert replace(planned, target_epochs=400).targets([]) == [400]
    assert Analysis(target_epochs=100).targets([100, 200, 300]) == [100, 300]
    assert Analysis(target_epochs=100).targets([]) == [100]


def test_endpoints_that_were_measured_follow_the_planned_ones_once() -> None:
    planned = Analysis(endpoint="a", secondary=("b",))
    assert planned.with_measured(["b", "c", "a"]).endpoints == ["a", "b", "c"]


def test_endpoints_are_the_accuracies_and_those_with_a_score_were_measured() -> None:
    frame = pd.DataFrame({"a_top1": [None, 1.0], "seed": [0, 1], "b_top1": [None, None]})
    assert endpoints_of(frame) == ["a_top1", "b_top1"]
    assert measured_endpoints(frame) == ["a_top1"]


def test_tables_call_an_endpoint_by_its_task() -> None:
    assert endpoint_label("finetune_top1") == "fine-tune top-1"
    assert endpoint_label("outside_top1") == "outside top-1"


def test_rows_of_a_frame() -> None:
    frame = pd.DataFrame({"a": [1, 2], 0: ["x", "y"]})
    assert rows_of(frame) == [{"a": 1, "0": "x"}, {"a": 2, "0": "y"}]
