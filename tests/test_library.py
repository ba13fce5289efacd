"""A study as a notebook does it: one import, four steps, nothing printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import NothingMeasuredError, UsageError
from bench.library import Means, Wish, compute, plan, read, report
from tests.conftest import TINY

MEANS = Means(launcher="inline", device="cpu", threads=1)


def test_from_wish_to_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = Wish(methods="mae,mae+mto", epochs=["1", "2"], seeds="2", settings=TINY)
    request = plan(wish, tmp_path / "out", MEANS)
    assert len(request.study.cells) == 8
    assert not (tmp_path / "out").exists(), "planning writes nothing"
    ended = compute(request)
    assert {p.state for p in ended} == {"done"}
    findings = read(tmp_path / "out", request.name)
    assert findings.complete
    assert set(findings.accuracy["arm"]) == {"mae", "mae+mto"}
    files = report(findings, tmp_path / "tables")
    assert {"report.md", "accuracy.csv", "report.json"} <= {p.name for p in files}
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_wrong_wishes_and_empty_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method 'maee'"):
        plan(Wish(methods="maee", epochs="1", seeds="1"), tmp_path)
    with pytest.raises(UsageError, match="unknown tracker 'cvs'"):
        plan(Wish(methods="mae", epochs="1", seeds="1"), tmp_path, Means(trackers=["cvs"]))
    with pytest.raises(NothingMeasuredError, match="no studies"):
        read(tmp_path)
