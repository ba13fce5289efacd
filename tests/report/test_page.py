"""The page in a real browser: quiet, both schemes, a phone's width, sorting and filtering."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bench.report import html
from bench.report.plots import section_plots
from bench.report.sections import find
from tests.support import golden_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
PHONE = 390
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
]
SCHEMES = {"light": "1", "dark": "0"}
"""Values of Blink's setting preferredColorScheme."""

PROBE = """<script>
const said = {}, first = document.querySelector("section > .wide > table");
const column = i => [...first.tBodies[0].rows].map(row => row.cells[i].textContent);
const heads = first.tHead.rows[0].cells;
const at = name => [...heads].findIndex(head => head.textContent === name);
heads[2].click(); said.rising = column(2);
heads[2].click(); said.falling = column(2);
heads[at("pre-training")].click(); said.times = column(at("pre-training"));
const seen = node => node.getClientRects().length > 0;
const named = kind => [...new Set([...document.querySelectorAll(kind)].filter(seen)
  .flatMap(node => node.dataset.method.split(" ")))].sort();
for (const part of document.querySelectorAll("details")) part.open = true;
method.value = "mae+mto"; method.dispatchEvent(new Event("change"));
said.filtered = {rows: named("tr[data-method]"), lines: named("li[data-method]"),
  forest: named(".forest g[data-method]"), figures: named("figure.lines").includes("mae+mto")};
data.value = "imagenet"; data.dispatchEvent(new Event("change"));
said.sections = [...document.querySelectorAll("section[data-data]")].filter(seen)
  .map(section => section.dataset.data);
method.value = data.value = ""; method.dispatchEvent(new Event("change"));
const style = getComputedStyle(document.body), text = document.querySelector("svg text");
said.colours = [style.color, style.backgroundColor, getComputedStyle(text).fill];
said.widths = [document.documentElement.scrollWidth, innerWidth];
const cell = first.tBodies[0].rows[1].cells[0], box = first.parentElement;
box.scrollLeft = 200;
said.first = [cell.getBoundingClientRect().left - box.getBoundingClientRect().left, box.scrollLeft];
document.body.dataset.said = JSON.stringify(said);
</script></body>"""


def opened(folder: Path, scheme: str, page: str) -> tuple[dict[str, Any], str]:
    """What the probe says of the page in a window of a phone's width, and the browser's log."""
    path = folder / "report.html"
    # Chromium's own windows are at least 500 px wide: the phone is a frame inside one
    path.write_text(page.replace("</body>", PROBE))
    frame = folder / "frame.html"
    frame.write_text(
        f'<body><iframe src="report.html" width="{PHONE}" height="800"></iframe><script>'
        "onload = () => { document.body.dataset.said = "
        "frames[0].document.body.dataset.said; };</script></body>"
    )
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
    command += ["--allow-file-access-from-files", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = re.search(r'data-said="([^"]*)"', done.stdout)
    assert found is not None, done.stderr
    return json.loads(unescape(found[1])), done.stderr


@pytest.fixture(scope="module", params=SCHEMES)
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], str]:
    found = find((vars(r) for r in golden_report.records()), golden_report.PLAN)
    plots = {part.key: section_plots(part, None) for part in found.sections}
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *opened(folder, request.param, html.document(found, plots))


pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium (apt-get install chromium)"),
]
Seen = tuple[str, dict[str, Any], str]


def test_the_console_is_quiet(seen: Seen) -> None:
    assert "CONSOLE" not in seen[2]


def test_it_follows_the_scheme(seen: Seen) -> None:
    ink, ground, figure = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in seen[1]["colours"])
    assert (ink < ground) == (seen[0] == "light")
    assert abs(ink - ground) > 400
    assert figure == ink


def test_a_phone_does_not_scroll_the_page_and_keeps_the_method_in_sight(seen: Seen) -> None:
    whole, window = seen[1]["widths"]
    assert window == PHONE
    assert whole <= window
    left, scrolled = seen[1]["first"]
    assert scrolled > 100
    assert left == pytest.approx(0, abs=1)


def test_columns_sort_by_number_both_ways(seen: Seen) -> None:
    means = [float(cell.split()[0]) for cell in seen[1]["rising"]]
    assert means == sorted(means)
    assert seen[1]["falling"] == seen[1]["rising"][::-1]


def test_times_sort_by_duration(seen: Seen) -> None:
    assert seen[1]["times"][0] == "3.3 min"
    assert seen[1]["times"][-1] == "16.7 min"


def test_filters_act_on_sentences_figures_and_tables(seen: Seen) -> None:
    filtered = seen[1]["filtered"]
    assert filtered["rows"] == ["mae", "mae+mto"]
    assert filtered["lines"] == ["mae+mto"]
    assert filtered["forest"] == ["mae+mto"]
    assert filtered["figures"] is True
    assert set(seen[1]["sections"]) == {"imagenet"}
