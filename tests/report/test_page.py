"""The page in a real browser: sorting and filtering. Needs Chromium, skipped without it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import golden_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
PROBE = """<script>
const first = document.querySelector("table"), said = document.body.dataset;
const column = i => [...first.tBodies[0].rows].map(row => row.cells[i].textContent).join("|");
const heads = first.tHead.rows[0].cells;
heads[2].click(); said.rising = column(2);
heads[2].click(); said.falling = column(2);
heads[8].click(); said.times = column(8);
method.value = "mae+mto"; method.dispatchEvent(new Event("change"));
const rows = [...first.tBodies[0].rows].filter(row => !row.hidden);
said.methods = [...new Set(rows.map(row => row.cells[0].textContent))].sort().join("|");
data.value = "imagenet"; data.dispatchEvent(new Event("change"));
said.hidden = [...document.querySelectorAll("section")].map(section => section.hidden).join("|");
</script></body>"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the page shows after clicks, by name."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    text = (golden_report.FOLDER / "report.html").read_text()
    page.write_text(text.replace("</body>", PROBE))
    body = re.search(r"<body ([^>]*)>", _dom(page))
    assert body is not None
    return {name: value.split("|") for name, value in re.findall(r'data-(\w+)="([^"]*)"', body[1])}


def _dom(page: Path) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium (apt-get install chromium)"),
]


def test_columns_sort_by_number_both_ways(said: dict[str, list[str]]) -> None:
    means = [float(cell.split()[0]) for cell in said["rising"]]
    assert means == sorted(means)
    assert said["falling"] == said["rising"][::-1]


def test_times_sort_by_duration(said: dict[str, list[str]]) -> None:
    assert said["times"][0] == "3.3 min"
    assert said["times"][-1] == "16.7 min"


def test_filters_keep_the_baseline_and_hide_other_data(said: dict[str, list[str]]) -> None:
    assert said["methods"] == ["mae", "mae+mto"]
    assert said["hidden"] == ["true", "false"]
