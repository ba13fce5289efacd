"""The verdict of a study: one word and one sentence a variant, first in every format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.report import html, markdown, terminal
from bench.report import write as report
from bench.report.plots import forest
from bench.report.sections import find
from bench.report.verdicts import Verdict, verdicts
from bench.store.record import Record
from tests.support.synthetic import PLAN, RISING, runs

PLATEAU = {"mae": [80, 79.9, 82], "mae+mto": [80, 81, 82.4]}


def test_the_first_plot_shows_the_target_that_the_verdict_speaks_of() -> None:
    """The primary one; where it cannot be measured, the one beside it as well."""
    for curves, targets in ((RISING, [200]), (PLATEAU, [200, 400])):
        (section,) = find((vars(r) for r in runs(curves)), PLAN).sections
        labels = [series.label for series in forest(section, primary=True).series]
        assert labels == [f"mae+mto, at {target}" for target in targets]
        others = [series.label for series in forest(section, primary=False).series]
        assert len(labels) + len(others) == len(section.targets)


def answer(records: list[Record], plan: dict[str, Any] | None = None) -> Verdict:
    (section,) = find((vars(r) for r in records), plan).sections
    (found,) = verdicts(section)
    return found


def test_a_verdict_says_epochs_time_and_half_the_epochs() -> None:
    found = answer(runs(RISING))
    assert found.word == "refuted"
    assert found.sentence == (
        "mae+mto at 100 epochs against mae at 200: -0.40 points of fine-tune accuracy (mae itself "
        "at 100: -1.00), at most -0.23 (margin 0.1, p 0.010). It saves epochs: 129 epochs to mae's "
        "accuracy at 200 epochs, ρ ×1.55 [1.38, 1.77]; wall time ×1.24 [1.10, 1.42]."
    )


def test_an_open_verdict_names_the_seeds_that_would_settle_it() -> None:
    found = answer(runs({"mae": [80, 81, 82], "mae+mto": [80.88, 81.9, 82.9]}))
    assert found.word == "open"
    assert found.seeds is not None
    assert f"; open at 5 seeds (about {found.seeds} would tell). It" in found.sentence


def test_a_pilot_is_open_and_claims_nothing() -> None:
    found = answer(runs(RISING, seeds=range(2)))
    assert found.word == "open"
    assert "pilot: no claim, 2 of 5 seeds; about" in found.sentence
    one = answer(runs(RISING, seeds=[0]))
    assert (one.word, one.seeds) == ("open", None)


def test_where_the_planned_target_is_not_defined_the_largest_defined_one_stands_beside_it() -> None:
    found = answer(runs(PLATEAU))
    assert found.word == "not measurable"
    assert "curve flat: not defined" in found.sentence
    assert found.beside.startswith("Beside it: mae+mto at 200 epochs against mae at 400")
    assert "at 400 epochs" in found.beside
    assert found.beside_word == "refuted"
    explicit = answer(runs(PLATEAU), PLAN)
    assert (explicit.word, explicit.beside_word) == ("not measurable", "refuted")
    assert "at its planned target" in explicit.sentence
    unrun = answer(runs(RISING), {**PLAN, "target_epochs": 800})
    assert (unrun.word, unrun.beside_word) == ("not measurable", "refuted")
    assert "nothing can be said" in unrun.sentence


def test_without_cells_at_half_the_epochs_the_saving_is_told_all_the_same() -> None:
    found = answer(
        runs({"mae": [80, 81, 82], "mae+mto": [80.6, 81.7, 82.3]}, budgets=[75, 200, 300])
    )
    assert found.word == "not measurable"
    assert "no cells at 100 epochs" in found.sentence
    assert "saves epochs" in found.sentence


@pytest.mark.parametrize("curves", [RISING, PLATEAU])
def test_the_verdict_leads_every_format(curves: dict[str, list[float]]) -> None:
    records = runs(curves)
    found = find((vars(r) for r in records), PLAN)
    said = answer(records, PLAN)
    flowing = " ".join(terminal.text(found).split())
    assert flowing.startswith(f"{said.word.upper()} {said.sentence}")
    document = markdown.document(found, {})
    assert document.index(said.sentence) < document.index("| --- |")
    table = f"| {said.arm} | **{said.word} (p "  # PLATEAU is not measured, so it is told in words
    lead = table if curves is RISING else f"- **{said.word}** · {said.sentence}"
    lines = markdown.block(found, {}).splitlines()
    assert lines[2 if curves is RISING else 0].startswith(lead)
    page = html.document(found, {})
    assert page.index('class="word') < page.index("<table")
    values = json.loads(json.dumps(report.results(report.prepare(records, PLAN))))
    assert list(values)[:2] == ["schema", "verdicts"]
    assert values["verdicts"][0]["word"] == said.word


def test_a_readme_has_one_row_a_variant_where_all_are_measured_and_sentences_else() -> None:
    table = markdown.block(find((vars(r) for r in runs(RISING)), PLAN), {}).splitlines()
    assert table[0].startswith("| method | half of 200 epochs | Δ there | the baseline itself |")
    assert table[2] == (
        "| mae+mto | **refuted (p 0.010)** | -0.40 [-0.57, -0.23] | -1.00 | 129 | "
        "**×1.55 [1.38, 1.77]** | ×1.24 [1.10, 1.42] |"
    )
    pilot = markdown.block(find((vars(r) for r in runs(RISING, seeds=range(2))), PLAN), {})
    assert "**open at 2 seeds (pilot: no claim, 2 of 5 seeds; about" in pilot
    flat = markdown.block(find((vars(r) for r in runs(PLATEAU)), PLAN), {})
    assert flat.startswith("- **not measurable** · ")


def test_a_margin_of_nothing_has_no_sign() -> None:
    """Minus it is the limit that the answers and the table of halves name."""
    curves = {"mae": [80.0, 81.0, 82.0], "mae+mto": [81.2, 82.0, 83.0]}
    for margin, limit in ((0, "0"), (0.0, "0"), (0.1, "-0.1"), (1, "-1")):
        found = report.prepare(runs(curves), {**PLAN, "margin": margin})
        block = report.readme_block(found, "figures")
        assert f"significantly above {limit}, refuted if below" in block
        assert f"limits exclude {limit}. " in block
        assert f"lower limit lies above {limit};" in markdown.document(found, {})


def test_the_terminal_keeps_within_eighty_columns() -> None:
    long = {"mae": [80.0, 81.0, 82.0], "mae+mto(init,recal,spa,entropy)": [80.6, 81.7, 82.3]}
    text = report.summary(report.prepare(runs(long)))
    assert max(map(len, text.splitlines())) <= 80
    assert "80.00 ± 0." in text


def test_a_target_that_is_not_reached_is_said_with_what_is_known() -> None:
    low = runs({"mae": [80, 81, 82], "mae+mto": [79, 80, 80.5]})
    found = answer(low, {**PLAN, "target_epochs": 400})
    assert (
        "It needs more epochs: mae's accuracy at 400 epochs is not reached (target missed, at "
        in found.sentence
    )
    one = answer(runs({"mae": [80, 81], "mae+mto": [79, 80]}, seeds=range(2), budgets=[100, 300]))
    assert "no cells at 150 epochs; pilot: no claim, 2 of 5 seeds" in one.sentence
