"""No claim word where nothing may be claimed, in any format; and where it may, it is there."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report import claims, html, latex, markdown
from bench.report import write as report
from bench.report.sections import find
from bench.stats.means import MIN_SEEDS
from bench.stats.power import seeds_to_settle
from bench.store.files import write_json
from bench.store.record import Record
from bench.store.store import Store
from tests.support.synthetic import PLAN, RISING, runs

CLAIM = re.compile(r"\b(saves?|shown|refuted|needs more|more epochs|proven)\b")
UNFAIR = {**PLAN, "warnings": ["unequal tuning: mae+mto had 8 trials, mae 4"]}


def texts(records: list[Record], plan: dict[str, Any] | None) -> dict[str, str]:
    """Everything that a report says of a study, by format; without the page's explanations."""
    found = report.prepare(records, plan)
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>|<dl>.*?</dl>|title=\"[^\"]*\"", "",
                  html.document(found, {}), flags=re.DOTALL)  # fmt: skip
    return {
        "md": markdown.document(found, {}),
        "html": page,
        "tex": latex.document(found),
        "json": json.dumps(report.results(found)),
        "csv": found.targets.to_csv() + found.differences.to_csv(),
        "terminal": report.summary(found),
    }


def unmatched(records: list[Record]) -> list[Record]:
    return [replace(r, digests={**r.digests, "mask": r.arm}) for r in records]


@st.composite
def barred(draw: st.DrawFn) -> tuple[list[Record], dict[str, Any] | None]:
    """A study of any effect and noise that bars every claim: few seeds, flat, unmatched, unfair."""
    why = draw(st.sampled_from(["pilot", "flat", "unmatched", "unlogged", "unfair"]))
    base = [80.0, 80.0, 80.0] if why == "flat" else [80.0, 81.0, 82.0]
    shift = draw(st.sampled_from([-3.0, -0.3, 0.0, 0.3, 3.0]))
    noise = draw(st.sampled_from([0.01, 0.1, 3.0]))
    seeds = range(draw(st.integers(1, MIN_SEEDS - 1))) if why == "pilot" else range(6)
    curves = {"mae": base, "mae+mto": [score + shift for score in base]}
    records = runs(curves, seeds, noise, rng_seed=draw(st.integers(0, 9)))
    if why == "unmatched":
        records = unmatched(records)
    if why == "unlogged":
        records = [replace(r, digests={}) for r in records]
    return records, UNFAIR if why == "unfair" else draw(st.sampled_from([None, PLAN]))


@settings(derandomize=True, deadline=None, max_examples=25)
@given(barred())
def test_no_claim_word_appears_where_nothing_may_be_claimed(
    case: tuple[list[Record], dict[str, Any] | None],
) -> None:
    for form, text in texts(*case).items():
        assert CLAIM.search(text) is None, (form, CLAIM.search(text))


@settings(derandomize=True, deadline=None, max_examples=18)
@given(st.sampled_from([-3.0, -0.2, 0.0, 0.2, 1.0, 3.0]), st.sampled_from([0.05, 1.0, 8.0]))
def test_a_claim_on_epochs_leans_on_a_closed_end(shift: float, noise: float) -> None:
    """Of a ratio that is not bounded on its side nothing is said."""
    curves = {"mae": [80.0, 81.0, 82.0], "mae+mto": [80.0 + shift, 81.0 + shift, 82.0 + shift]}
    rows = find((vars(r) for r in runs(curves, range(6), noise)), None).targets
    for _, row in rows.iterrows():
        if claims.SAVES in row["verdict"]:
            assert row["rho_low"] > 1
            assert row["p_holm"] <= 0.05
        if claims.MORE in row["verdict"]:
            assert row["rho_high"] < 1 or row["rho_high"] <= row["bound"] <= 1
            assert row["p_holm"] <= 0.05
        if row["half"] == claims.SHOWN:
            assert row["half_low"] > -0.1
        if row["half"] == claims.REFUTED:
            assert row["half_high"] < -0.1


def test_a_study_of_wide_intervals_claims_nothing() -> None:
    calm = runs({"mae": [80, 81, 82]}, noise=0.0)
    wild = runs({"mae": [80, 81, 82], "mae+mto": [80, 81, 82]}, noise=8.0)
    records = calm + [r for r in wild if r.plugins]
    assert {row["rho_words"] for row in report.results(report.prepare(records))["targets"]} >= {
        "×1.00 (not bounded)"
    }
    for form, text in texts(records, None).items():
        assert CLAIM.search(text) is None, form


def test_a_study_that_may_claim_does() -> None:
    """The same words are found where they belong, so that their absence above means something."""
    for form, text in texts(runs(RISING), None).items():
        assert "saves epochs" in text, form


@pytest.mark.parametrize(
    ("curve", "word"),
    [([81.2, 82, 83], "shown"), ([80.1, 81.1, 82.1], "refuted"), ([80.88, 81.9, 82.9], "open")],
)
def test_half_the_epochs_in_one_word(curve: list[float], word: str) -> None:
    rows = report.results(report.prepare(runs({"mae": [80, 81, 82], "mae+mto": curve})))["targets"]
    (row,) = [row for row in rows if row["primary"]]
    assert row["half"] == word
    assert (row["half_seeds"] is None) == (word != "open")
    if word == "open":
        assert row["half_seeds"] > 5


def test_seeds_that_would_settle_it_do() -> None:
    """With the same mean and spread over as many seeds as advised the test is significant."""
    few = runs({"mae": [80, 81, 82], "mae+mto": [80.85, 81.9, 82.9]}, noise=0.1)
    (row,) = [row for row in report.results(report.prepare(few))["targets"] if row["primary"]]
    assert row["half"] == "open"
    n = int(row["half_seeds"])
    many = runs({"mae": [80, 81, 82], "mae+mto": [80.85, 81.9, 82.9]}, seeds=range(2 * n))
    (row,) = [row for row in report.results(report.prepare(many))["targets"] if row["primary"]]
    assert row["half"] != "open"


@pytest.mark.parametrize("budgets", [(100, 200), (100, 200, 400)])
def test_the_seeds_told_count_the_tests_of_halves_alone(budgets: tuple[int, ...]) -> None:
    """Of two budgets one has its half among them, though both have a test of rho; of three, two."""
    whole = {"mae": [80.0, 81.0, 82.0], "mae+mto": [80.88, 81.88, 82.9]}
    curves = {arm: means[: len(budgets)] for arm, means in whole.items()}
    found = report.prepare(runs(curves, budgets=budgets))
    frame = found.targets[found.targets["endpoint"] == "finetune_top1"]
    row = frame[frame["primary"]].iloc[0]
    assert row["half"] == "open"
    tests = len(budgets) - 1
    assert (row["comparisons"], frame["half_p"].notna().sum()) == (2, tests)
    gap = row["half_difference"] + 0.1
    wanted = seeds_to_settle(gap, row["half_sd"], alpha=0.05 / tests)
    assert row["half_seeds"] == wanted != seeds_to_settle(gap, row["half_sd"], alpha=0.05 / 3)


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_a_flat_baseline_leaves_nothing_to_measure_however_few_the_seeds(n: int) -> None:
    """More seeds would not tell: the accuracy to reach is noise."""
    found = report.prepare(runs({"mae": [80, 80, 82], "mae+mto": [80, 81, 82]}, range(n)), PLAN)
    row = next(row for row in report.results(found)["targets"] if row["primary"])
    assert (row["state"], row["half"], row["half_words"]) == (
        "flat",
        "not measurable",
        "curve flat: not defined",
    )
    assert (row["half_seeds"], row["noninferior"]) == (None, None)
    assert row["verdict"].startswith("pilot" if n < MIN_SEEDS else "curve flat")
    text = " ".join(report.summary(found).split())
    assert text.startswith("NOT MEASURABLE mae+mto cannot be measured at its planned target")
    assert "would tell" not in text.partition("Beside it")[0]


def spoken(path: Path) -> set[str]:
    """Claim words in the texts of a module, its docstrings left out."""
    tree = ast.parse(path.read_text())
    bodies = (ast.Module, ast.FunctionDef, ast.ClassDef)
    silent = {id(node) for body in ast.walk(tree) if isinstance(body, bodies) for node in [
        s.value for s in body.body if isinstance(s, ast.Expr)]}  # fmt: skip
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
    ]
    return {word for word in claims.CLAIMS for text in texts if word in text}


def test_no_other_module_speaks_a_claim_word() -> None:
    """The page's explanations and the example of a gate name them; nothing else may."""
    report_folder = Path(claims.__file__).parent
    paths = [*report_folder.glob("*.py"), *(report_folder.parent / "commands").glob("*.py")]
    found = {path.name: words for path in paths if (words := spoken(path))}
    assert found.pop("claims.py") == set(claims.CLAIMS)
    assert found == {"glossary.py": {"shown", "refuted"}, "gates.py": {"shown"}}


@pytest.mark.parametrize("methods", [("mae", "mae"), ("mae", "gridmae")])
def test_methods_of_other_names_may_differ_in_their_own_settings(
    methods: tuple[str, str], tmp_path: Path
) -> None:
    """Where one method names another as its baseline; the recipe must be one all the same."""
    store = Store(tmp_path)
    records = runs(RISING)
    for record in records:
        own = {"method": methods[bool(record.plugins)], "hyper": {"width": len(record.plugins)}}
        plain = {**own, "pretrain": {"blr": 1e-3, "epochs": record.epochs}}
        write_json(store.run(record.run_id).path / "config.json", {"config": plain})
    unfair = set(report.prepare(records, None, store).targets["unfair"])
    assert unfair == ({"arms differ in hyper.width (0 and 1)"} if methods[1] == "mae" else {""})


def test_arms_of_other_settings_claim_nothing(tmp_path: Path) -> None:
    """A folder of runs may hold arms that no one plan compared: their settings are looked at."""
    store = Store(tmp_path)
    records = runs(RISING)
    for record in records:
        blr = 2e-3 if record.plugins else 1e-3
        pretrain = {"blr": blr, "epochs": record.epochs}
        plain = {"pretrain": pretrain, "plugins": record.plugins, "seed": record.seed}
        write_json(store.run(record.run_id).path / "config.json", {"config": plain})
    rows = report.prepare(records, None, store).targets
    assert set(rows["verdict"]) == {"no claim: arms differ in pretrain.blr (0.001 and 0.002)"}
    assert set(report.prepare(records, None).targets["unfair"]) == {""}


def with_settings(records: list[Record], blr: Any, folder: Path) -> Store:
    """A store in which each run has the learning rate that ``blr`` says of its record."""
    store = Store(folder)
    for record in records:
        plain = {"pretrain": {"blr": blr(record), "epochs": record.epochs}, "seed": record.seed}
        write_json(store.run(record.run_id).path / "config.json", {"config": plain})
    return store


def test_settings_of_one_data_set_bar_no_claim_of_another(tmp_path: Path) -> None:
    digits = runs(RISING)
    cifar = [replace(r, data="cifar", run_id=f"{r.run_id}-c") for r in digits]
    odd = lambda r: 2e-3 if r.plugins and r.data == "cifar" else 1e-3  # noqa: E731
    found = report.prepare(digits + cifar, None, with_settings(digits + cifar, odd, tmp_path))
    unfair = found.targets.groupby("data")["unfair"].unique()
    assert list(unfair["digits"]) == [""]
    assert list(unfair["cifar"]) == ["arms differ in pretrain.blr (0.001 and 0.002)"]


def test_budgets_of_other_settings_claim_nothing(tmp_path: Path) -> None:
    """A variant at some epochs is set against its baseline at others."""
    records = runs(RISING)
    odd = lambda r: 2e-2 if r.epochs == 100 else 1e-3  # noqa: E731
    found = report.prepare(records, None, with_settings(records, odd, tmp_path)).targets
    said = "budgets of mae differ in pretrain.blr; budgets of mae+mto differ in pretrain.blr"
    assert set(found["unfair"]) == {said}
    assert set(found["verdict"]) == {f"no claim: {said}"}


def test_arms_that_differ_at_the_target_are_not_told_to_be_alike() -> None:
    dip = runs({"mae": [80, 81, 82], "mae+mto": [80, 82, 80.2]}, range(8))
    plan = {**PLAN, "seeds": list(range(8))}
    rows = report.results(report.prepare(dip, plan))["targets"]
    mine = [row for row in rows if row["endpoint"] == "finetune_top1"]
    assert all(row["p_holm"] < 0.001 for row in mine)
    assert [row["verdict"] for row in mine] == [claims.NO_RATIO] * 2
    assert claims.NO_RATIO in texts(dip, plan)["md"]


def test_an_endpoint_in_the_place_of_the_planned_one_answers_nothing() -> None:
    probed = [replace(r, scores={"probe_top1": r.scores["probe_top1"]}) for r in runs(RISING)]
    found = report.prepare(probed, PLAN)
    (verdict,) = report.results(found)["verdicts"]
    assert verdict["word"] == claims.UNMEASURABLE
    assert "the planned endpoint, fine-tune top-1: no run has it" in verdict["sentence"]
    assert "linear-probe accuracy" in verdict["beside"]
    assert report.shortcomings(found) == [
        "the planned primary endpoint was not measured: finetune_top1"
    ]
    (asked,) = report.results(report.prepare(probed, {**PLAN, "endpoint": "probe_top1"}))[
        "verdicts"
    ]
    assert asked["word"] == claims.REFUTED
