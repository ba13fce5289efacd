"""The report as files."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.report import write as report
from bench.store.store import Store
from tests.support.synthetic import PLAN, RISING, runs


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


def test_a_baseline_alone_has_tables_that_pandas_can_read(tmp_path: Path) -> None:
    report.write_report(report.prepare(runs({"mae": RISING["mae"]})), tmp_path, ["md", "csv"])
    frames = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert set(frames) == {"accuracy", "costs", "differences", "targets"}
    assert len(frames["accuracy"])
    for name in ("differences", "targets"):
        assert frames[name].empty
        assert "arm" in frames[name]
    assert "\n " not in (tmp_path / "report.md").read_text()


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
