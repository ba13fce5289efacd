"""What is published under results/ comes from the committed records and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.run import main

ROOT = Path(__file__).parents[2]
ARCHIVES = sorted((ROOT / "results").glob("*.tar.gz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_published_tables_follow_from_the_archived_records(archive: Path, tmp_path: Path) -> None:
    words = ["report", "--archive", str(archive), "--to", str(tmp_path)]
    assert main([*words, "--format", "md", "csv", "png"]) == 0
    published = ROOT / "results" / archive.name.removesuffix(".tar.gz")
    assert (published / "report.md").read_text() == (tmp_path / "report.md").read_text()
    frames = sorted(tmp_path.glob("*.csv"))
    assert frames
    for path in frames:  # another processor may round the last digit otherwise
        once, again = pd.read_csv(published / path.name), pd.read_csv(path)
        pd.testing.assert_frame_equal(once, again, rtol=1e-9)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_published_pages_load_fast(archive: Path) -> None:
    page = ROOT / "results" / archive.name.removesuffix(".tar.gz") / "report.html"
    assert page.stat().st_size <= 600_000


def test_the_readmes_verdict_is_the_one_of_the_published_study(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    archive = str(ROOT / "results" / "digits.tar.gz")
    words = ["report", "--archive", archive, "--format", "md"]
    words += ["--to", str(tmp_path / "results" / "digits")]  # the figures as seen from the README
    assert main([*words, "--readme", str(readme)]) == 0
    assert readme.read_text() == (ROOT / "README.md").read_text()
