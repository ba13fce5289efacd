"""What is published under results/ comes from the committed records and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.run import main

ROOT = Path(__file__).parents[2]
ARCHIVES = sorted((ROOT / "results").glob("*.tar.gz"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_published_tables_follow_from_the_archived_records(archive: Path, tmp_path: Path) -> None:
    words = ["report", "--archive", str(archive), "--to", str(tmp_path)]
    assert main([*words, "--format", "md", "csv", "json", "png"]) == 0
    published = ROOT / "results" / archive.name.removesuffix(".tar.gz")
    written = sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert written
    for path in written:
        assert (published / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_readmes_table_is_the_one_of_the_published_study(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    archive = str(ROOT / "results" / "digits.tar.gz")
    words = ["report", "--archive", archive, "--to", str(tmp_path), "--format", "md"]
    assert main([*words, "--readme", str(readme)]) == 0
    assert readme.read_text() == (ROOT / "README.md").read_text()
