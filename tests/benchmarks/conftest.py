"""What every benchmark shares: memory kept as in a run, and what is stored of the machine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.machine import provenance
from bench.machine.allocator import keep_freed_memory


@pytest.fixture(autouse=True, scope="session")
def memory_as_in_a_run() -> None:
    """Freed memory stays with the process, for the peers' steps as for ours."""
    keep_freed_memory()


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """What moves a number, and no host or user name."""
    machine_info.pop("node", None)
    cpu = machine_info.pop("cpu", {})
    machine_info["cpu"] = {key: cpu.get(key) for key in ("brand_raw", "count", "arch")}
    machine_info["instructions"] = torch.backends.cpu.get_cpu_capability()
    machine_info["threads"] = torch.get_num_threads()
    machine_info["versions"] = provenance.versions()
    machine_info["code"] = provenance.code()
