"""What a run's process has of the one that forked it."""

from __future__ import annotations

import gc

from tests.support.tiny_runs import in_process


def _unlike() -> int:
    return int(not gc.isenabled()) + 2 * int(gc.get_freeze_count() < 100_000)


def test_a_run_collects_garbage_and_does_not_walk_what_was_imported() -> None:
    process = in_process(_unlike)
    process.join()
    assert process.exitcode == 0
