"""What a stored benchmark says of the machine: what moves a number, and no host or user name."""

from __future__ import annotations

from typing import Any

import torch

from bench import provenance


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.pop("node", None)
    cpu = machine_info.pop("cpu", {})
    machine_info["cpu"] = {key: cpu.get(key) for key in ("brand_raw", "count", "arch")}
    machine_info["threads"] = torch.get_num_threads()
    machine_info["versions"] = provenance.versions()
    machine_info["code"] = provenance.code()
