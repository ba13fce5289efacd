"""The report as files, its gates, the comparison of two studies and the power advice."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import GateError, NothingMeasuredError, UsageError
from bench.report import write as report
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


def test_power_says_what_seeds_buy_and_cost() -> None:
    text = report.power(report.prepare(runs(RISING, seeds=range(3))), (3, 8))
    lines = [line for line in text.splitlines() if line.startswith(("| 3 ", "| 8 "))]
    assert len(lines) == 4
    assert "cannot be significant" in lines[0]
    assert "cannot be significant" not in lines[1]
    assert "points a doubling" in text


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
