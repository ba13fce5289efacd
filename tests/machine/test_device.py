"""The device of a process."""

from __future__ import annotations

import pytest
import torch

from bench.machine.device import pick_device


@pytest.mark.parametrize(("name", "own"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", [])])
def test_a_gpu_named_by_its_number_is_the_process_own(
    name: str, own: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its generator is the one that :mod:`bench.streams` seeds."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert pick_device(name) == torch.device(name)
    assert chosen == own


def test_a_cpu_is_chosen_by_name_or_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
