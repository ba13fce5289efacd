"""One table of exit codes: in the code, in --help and in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import errors
from bench.errors import EXIT_CODES, BenchError
from bench.run import main


def test_the_readme_and_the_help_have_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in readme
        assert f"  {code:<4} {meaning}" in shown


def test_every_error_ends_with_a_code_of_the_table() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, BenchError)]
    assert len(found) > 10
    assert {e.exit_code for e in found} <= set(EXIT_CODES)
