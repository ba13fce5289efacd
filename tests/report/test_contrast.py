"""The comparison of two studies, and the power advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import NothingMeasuredError
from bench.report import write as report
from bench.report.sections import Findings
from bench.store.files import write_json
from bench.store.record import Record
from bench.store.store import Store
from tests.support.synthetic import PLAN, RISING, runs


def test_compare_pairs_by_seed_and_names_what_differs() -> None:
    later = [replace(r, commit="fedcba9876543210") for r in runs(RISING)]
    text = report.compare(report.prepare(runs(RISING)), report.prepare(later), ("before", "after"))
    assert "+0.00 [+0.00, +0.00] | 5 | 1.000 |" in text
    assert "- code: before 0123456789; after fedcba9876" in text
    same = report.prepare(runs(RISING))
    assert "Nothing" in report.compare(same, same)


CONFIG: dict[str, Any] = {
    "hyper": {"mask_ratio": 0.6},
    "pretrain": {"lr": 0.002, "betas": [0.9, 0.95], "augment": {"flip": 0.5}},
    "finetune": {"lr": 0.1, "repeat": 0},
    "init": "",
}


def with_settings(
    place: Path, values: Mapping[str, Any] = {}, tau: float = 0.1, plan: Mapping[str, Any] = {}
) -> Findings:
    """Findings of runs whose settings are at hand; ``values`` replaces whole sections."""
    store = Store(place)
    for run in runs(RISING):
        config = {**CONFIG, **values, "method": run.method, "seed": run.seed}
        config["plugins"] = [[name, {"tau": tau}] for name in run.plugins]
        config["pretrain"] = {**config["pretrain"], "epochs": run.epochs}
        kept = {"config": {name: value for name, value in config.items() if value is not None}}
        write_json(store.run(run.run_id).path / "config.json", kept)
    return report.prepare(runs(RISING), {**PLAN, **plan}, store)


def differing(a: Findings, b: Findings) -> list[str]:
    _, _, rest = report.compare(a, b).partition("## What else differs\n\n")
    return rest.splitlines()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pretrain": {**CONFIG["pretrain"], "lr": 1e-5}}, "pretrain.lr: A 0.002; B 1e-05"),
        (
            {"pretrain": {**CONFIG["pretrain"], "augment": {"flip": 0.0}}},
            "pretrain.augment.flip: A 0.5; B 0.0",
        ),
        (
            {"pretrain": {**CONFIG["pretrain"], "young": 3}},
            "pretrain.young: A default; B 3",
        ),
        ({"hyper": {"mask_ratio": 0.5}}, "mae.mask_ratio: A 0.6; B 0.5"),
        ({"finetune": None}, "finetune: A used; B left out"),
        ({"finetune": {"lr": 0.1, "repeat": 1}}, ""),
        ({"init": "x.pth"}, "init: A —; B x.pth"),
    ],
)
def test_compare_names_settings_that_differ(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    a, b = with_settings(tmp_path / "a"), with_settings(tmp_path / "b", values)
    nothing = "Nothing: same code, hardware, settings, recipe, seeds, versions and analysis."
    assert differing(a, b) == [f"- {said}" if said else nothing]


def test_compare_names_the_arms_that_differ_where_not_all_do(tmp_path: Path) -> None:
    a, b = with_settings(tmp_path / "a"), with_settings(tmp_path / "b", tau=0.3)
    assert differing(a, b) == ["- mto.tau: A 0.1; B 0.3"], "every arm that has it"
    (run,) = (r for r in runs(RISING) if (r.arm, r.epochs, r.seed) == ("mae", 100, 3))
    folder = Store(tmp_path / "b").run(run.run_id)
    kept: dict[str, Any] = folder.config() or {}
    kept["config"]["pretrain"]["lr"] = 1
    write_json(folder.path / "config.json", kept)
    lr = "- pretrain.lr (mae): A 0.002; B 0.002, 1"
    assert differing(a, b) == ["- mto.tau: A 0.1; B 0.3", lr]


def test_compare_names_what_the_plans_fix_otherwise(tmp_path: Path) -> None:
    plan = {"margin": 1.0, "target_epochs": 100, "baseline": "mae"}
    a, b = with_settings(tmp_path / "a"), with_settings(tmp_path / "b", plan=plan)
    assert differing(a, b) == [
        "- target epochs: A 200, 400; B 100, 400",
        "- margin: A 0.1; B 1",
        "- baseline: A each arm's own; B mae",
    ]


def test_compare_says_where_settings_are_not_known(tmp_path: Path) -> None:
    known, bare = with_settings(tmp_path), report.prepare(runs(RISING), PLAN)
    lacking = "Settings are not compared: no config.json of a finished run of"
    same = "Nothing: same code, hardware, recipe, seeds, versions and analysis."
    assert differing(known, bare) == [same, "", f"{lacking} B."]
    assert differing(bare, bare) == [same, "", f"{lacking} A and B."]
    odd = [{}, {"a": 1}, {"method": [], "hyper": 1, "plugins": [1, ["x"], ["y", 2]], "seed": 1}]
    for values in odd:
        for run in runs(RISING):
            write_json(Store(tmp_path).run(run.run_id).path / "config.json", {"config": values})
        assert differing(known, known)


TWO = {"one": 0.0, "two": -3.0}
"""Evaluation recipes, and what each adds to a score."""


def of_recipes(recipes: Mapping[str, float]) -> Findings:
    found = [
        replace(
            run,
            run_id=f"{run.run_id}-{name}",
            recipe=name,
            scores={key: score + more for key, score in run.scores.items()},
        )
        for run in runs(RISING)
        for name, more in recipes.items()
    ]
    return report.prepare(found, {**PLAN, "ids": [run.run_id for run in found]})


@pytest.mark.parametrize("brief", [False, True], ids=["paired", "brief"])
def test_compare_keeps_evaluation_recipes_apart(brief: bool) -> None:
    def side(recipes: Mapping[str, float]) -> report.Side:
        return report.results(of_recipes(recipes)) if brief else of_recipes(recipes)

    text = report.compare(side(TWO), side({"one": 0.5}))
    assert "n 10" not in text
    assert "| epochs | endpoint | recipe | A |" in text or "| epochs | recipe | A |" in text
    assert "Rows of different evaluation recipes stay apart." in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| digits | mae ")]
    assert len(rows) == 2 * 3 * 2, "endpoints, budgets and recipes, each once"
    seeds = [sum("n 5)" in cell for cell in row) for row in rows if "one" in row]
    assert seeds == [2] * 6
    assert [sum("n 5)" in cell for cell in row) for row in rows if "two" in row] == [1] * 6
    assert brief or "+0.50 [+0.50, +0.50] | 5 |" in text
    targets = text.partition("## Epochs to target")[2]
    assert targets.count("| digits | mae+mto | fine-tune top-1 | 200 | one | ×") == 1
    assert targets.count("| digits | mae+mto | fine-tune top-1 | 200 | two | ×") == 1
    assert targets.count("| — | — |") == 2 * 2, "endpoints and targets of the recipe of one side"


@pytest.mark.parametrize("brief", [False, True], ids=["paired", "brief"])
def test_compare_says_that_a_single_recipe_is_another(brief: bool) -> None:
    sides: list[report.Side] = [of_recipes({name: more}) for name, more in TWO.items()]
    if brief:
        sides = [report.results(of_recipes({name: more})) for name, more in TWO.items()]
    text = report.compare(*sides)
    assert "different recipes (digits: one / two): a difference between them is that of" in text
    assert "recipe | A" not in text
    assert brief or "-3.00 [-3.00, -3.00] | 5 |" in text
    assert "recipes" not in report.compare(sides[0], sides[0])


def test_power_says_what_seeds_buy_and_cost() -> None:
    text = report.power(report.prepare(runs(RISING, seeds=range(3))), (3, 8))
    lines = [line for line in text.splitlines() if line.startswith(("| 3 ", "| 8 "))]
    assert len(lines) == 4
    assert "cannot be significant" in lines[0]
    assert "cannot be significant" not in lines[1]
    assert "points a doubling" in text


@pytest.mark.parametrize(
    ("n", "rows"),
    [
        (3, [3, 5, 8, 10]),
        (9, [3, 5, 8, 10]),
        (10, [3, 5, 8, 10, 20]),
        (16, [3, 5, 8, 10, 16, 32]),
    ],
)
def test_power_speaks_of_more_seeds_than_there_are(n: int, rows: list[int]) -> None:
    text = report.power(report.prepare(runs(RISING, seeds=range(n))))
    table = text.partition("linear-probe")[0]
    assert [int(seeds) for seeds in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == rows


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (runs(RISING, seeds=[0]), "no two seeds of mae\\+mto and of its baseline have finished"),
        (runs({"mae": [80, 81, 82]}), "no variant beside mae; .* as --methods mae"),
        (runs({"mae+mto": [80, 81, 82]}), "mae\\+mto lacks its baseline mae"),
    ],
)
def test_power_without_pairs_says_what_is_missing(records: list[Record], said: str) -> None:
    with pytest.raises(NothingMeasuredError, match=said):
        report.power(report.prepare(records))
