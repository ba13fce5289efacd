"""Batches are cut between groups of images only, or the run is refused before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api import Needs
from bench.errors import UsageError
from bench.machine.world import World
from bench.plan.cuts import check_cuts, whole_groups
from bench.run import main

PAIRS = Needs(together=2, setting="toy.group")
WHOLE = Needs(together=0, setting="toy.group")


@pytest.mark.parametrize(
    ("needs", "batch", "micro_batch", "processes"),
    [(Needs(), 8, 1, 99), (PAIRS, 8, 3, 4), (WHOLE, 8, 8, 1), (PAIRS, 7, 0, 4), (WHOLE, 8, 0, 1)],
)
def test_cuts_between_groups_pass(
    needs: Needs, batch: int, micro_batch: int, processes: int
) -> None:
    check_cuts(needs, batch, micro_batch, processes)


@pytest.mark.parametrize(
    ("needs", "micro_batch", "processes", "message"),
    [
        (PAIRS, 1, 1, r"micro-batch of 1 .* --batch-size 2 or 0, or set toy.group=1"),
        (WHOLE, 4, 1, r"8 images enter the loss together.* micro-batch of 4"),
        (PAIRS, 0, 5, r"has 4 parts, too few for 5 processes. Use at most 4"),
        (WHOLE, 0, 2, r"has 1 parts"),
    ],
)
def test_cuts_within_a_group_are_refused(
    needs: Needs, micro_batch: int, processes: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_cuts(needs, 8, micro_batch, processes)


def test_micro_batches_are_rounded_down_to_groups() -> None:
    assert [whole_groups(PAIRS, m) for m in (2, 3, 4, 0)] == [2, 2, 4, 0]
    assert [whole_groups(Needs(), m) for m in (0, 1, 7)] == [0, 1, 7]
    assert whole_groups(WHOLE, 8) == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [8, 7, 13])
def test_processes_share_a_batch_in_whole_groups(size: int, count: int) -> None:
    parts = [World(rank, size).places(count, together=2) for rank in range(size)]
    assert torch.equal(torch.cat(parts), torch.arange(count))
    assert all(len(p) and int(p[0]) % 2 == 0 for p in parts)


def test_one_group_of_all_goes_to_one_process() -> None:
    assert torch.equal(World(0, 1).places(5, together=0), torch.arange(5))
    lengths = [len(World(rank, 2).places(5, together=0)) for rank in range(2)]
    assert sorted(lengths) == [0, 5]


def test_the_command_line_refuses_before_anything_is_written(tmp_path: Path, capsys: Any) -> None:
    line = ["--methods", "conmim", "--epochs", "1", "--batch-size", "16", "--out"]
    assert main([*line, str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "conmim.norm_images=64" in said
    assert "--batch-size 64" in said
    assert not (tmp_path / "out" / "runs").exists()
