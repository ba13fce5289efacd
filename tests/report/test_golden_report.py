from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support import golden_report

FRAMES = ("accuracy.csv", "differences.csv", "targets.csv", "costs.csv")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    golden_report.write(folder)
    return folder


def test_the_same_files_are_written(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {path.name for path in golden_report.FOLDER.iterdir()}


@pytest.mark.parametrize(
    "name", ["report.md", "report.tex", "report.html", "terminal.txt", "block.md"]
)
def test_text_is_golden(written: Path, name: str) -> None:
    assert (written / name).read_text() == (golden_report.FOLDER / name).read_text()


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_golden(written: Path, name: str) -> None:
    found, golden = (pd.read_csv(folder / name) for folder in (written, golden_report.FOLDER))
    pd.testing.assert_frame_equal(found, golden)


def test_json_is_golden(written: Path) -> None:
    found, golden = (
        json.loads((folder / "report.json").read_text())
        for folder in (written, golden_report.FOLDER)
    )
    assert found.keys() == golden.keys()
    for name, value in golden.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            pd.testing.assert_frame_equal(pd.DataFrame(found[name]), pd.DataFrame(value))
        else:
            assert found[name] == value


def test_every_column_is_explained() -> None:
    """results/README.md has a line for each column of each CSV."""
    text = (Path(__file__).parents[2] / "results" / "README.md").read_text()
    for name in FRAMES:
        columns = pd.read_csv(golden_report.FOLDER / name, nrows=0).columns
        missing = [column for column in columns if f"`{column}`" not in text]
        assert missing == [], name
