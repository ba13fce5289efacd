"""The report as files, its gates, the comparison of two studies and the power advice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import GateError, NothingMeasuredError, UsageError
from bench.plan.study import Study
from bench.plan.wish import Wish, plan_wish
from bench.report import write as report
from bench.report.sections import Findings
from bench.store.files import write_json
from bench.store.record import Record
from bench.store.store import Store
from tests.support.synthetic import PLAN, RISING, runs

# --- files ------------------------------------------------------------------------------------


@pytest.mark.drawn
def test_reports_are_idempotent(tmp_path: Path) -> None:
    first = report.write_report(report.prepare(runs(RISING), PLAN), tmp_path / "a", report.FORMATS)
    bytes_before = [path.read_bytes() for path in first]
    times = [path.stat().st_mtime_ns for path in first if path.suffix in (".png", ".svg")]
    again = report.write_report(
        report.prepare(runs(RISING)[::-1], PLAN), tmp_path / "a", report.FORMATS
    )
    assert again == first
    assert [path.read_bytes() for path in again] == bytes_before
    assert [p.stat().st_mtime_ns for p in again if p.suffix in (".png", ".svg")] == times
    elsewhere = report.write_report(
        report.prepare(runs(RISING), PLAN), tmp_path / "b", report.FORMATS
    )
    assert [path.read_bytes() for path in elsewhere] == bytes_before


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'html'"):
        report.write_report(report.prepare(runs(RISING)), tmp_path, ["md", "htm"])
    assert list(tmp_path.iterdir()) == []


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    paths = report.write_report(report.prepare(runs(RISING)), tmp_path, ["html"])
    page = paths[0].read_text()
    links = re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|fetch\(|XMLHttp|<link|<iframe", page)
    assert '<select id="method">' in page
    assert '<select id="data">' in page


def test_a_method_whose_runs_all_failed_has_no_curve_to_draw(tmp_path: Path) -> None:
    failed = [
        replace(r, status="failed", failure="non-finite", scores={}) if r.method == "simmim" else r
        for r in runs({"mae": [80, 81, 82], "simmim": [80, 81, 82]})
    ]
    paths = report.write_report(report.prepare(failed), tmp_path, ["html", "svg"])
    names = {path.name for path in paths}
    assert any("accuracy_mae" in name for name in names)
    assert not any("simmim" in name for name in names)
    assert "simmim" in (tmp_path / "report.html").read_text()


def test_plots_from_logs_need_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for arm in RISING:
        folder = store.run(f"pre-{arm}-digits-e200-s0")
        for epoch in (1, 2, 3):
            layers = {"heterogeneity": [0.9, 0.8 / epoch]} if epoch != 2 else {}
            folder.append_metrics(
                {"stage": "pretrain", "epoch": epoch, "step": epoch, "loss": 1 / epoch, **layers}
            )
    with_logs = report.write_report(report.prepare(runs(RISING)), tmp_path / "a", ["svg"], store)
    names = " ".join(path.name for path in with_logs)
    assert "loss_mae" in names
    assert "heterogeneity_mae" in names
    without_logs = report.write_report(report.prepare(runs(RISING)), tmp_path / "b", ["svg"])
    assert "loss" not in " ".join(path.name for path in without_logs)


def test_reporting_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, bench.report.write, bench.store.index; "
        "print([m for m in ('torch', 'matplotlib', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- gates, comparison, power -----------------------------------------------------------------


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


SETTINGS = {
    "mae": [80, 81, 82],
    "mae+mto(recal,rows=all)": [80.6, 81.7, 82.3],
    "mae+mto(recal,rows=all,keep_self=false)": [80.5, 81.6, 82.2],
}


def test_arms_with_settings_in_their_names_stay_apart_in_every_format(tmp_path: Path) -> None:
    found = report.prepare(runs(SETTINGS))
    one, two = list(SETTINGS)[1:]
    assert "holds" in report.gate(f"rho({two}, data=digits)>=1.3", report.results(found))
    written = {p.name: p for p in report.write_report(found, tmp_path, ("html", "md", "tex"))}
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in written)
    page, text = written["report.html"].read_text(), written["report.md"].read_text()
    assert all(f"<option>{arm}</option>" in page and f"| {arm} |" in text for arm in (one, two))
    table = next(p.read_text() for name, p in written.items() if name.endswith(".tex"))
    assert r"mae+mto(recal,rows=all,keep\_self=false) & 200" in table
    assert not re.search(r"(?<!\\)_self", table)
    summary = report.summary(found)
    assert re.search(r"^mae\+mto\(recal,rows=all\) +100 ", summary, re.M)
    assert re.search(r"^mae\+mto\(recal,rows=all, +100 .*\n keep_self=false\)$", summary, re.M)
    assert max(map(len, summary.splitlines())) <= 80
