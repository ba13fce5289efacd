"""The mutation runner can run tests at all; the rest of it is seen when it is used."""

from __future__ import annotations

from tests.mutants import child
from tests.mutants.folders import FOLDERS


def test_tests_run_in_a_forked_process_with_the_runners_options() -> None:
    passing = "tests/test_digest.py"
    assert passing in FOLDERS["streams"][1]
    assert child.forked(lambda: child.run_tests([passing]), 60) == 0
    assert child.forked(lambda: child.run_tests([f"{passing}::none"]), 60) != 0
