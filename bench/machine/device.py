"""The device and the CPU threads a process computes with."""

from __future__ import annotations

import torch

from bench.machine.allocator import keep_freed_memory
from bench.plan.config import Resources


def settle(resources: Resources) -> int:
    """Gives this process its CPU threads and lets it keep freed memory; returns the threads."""
    threads = resources.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    return threads


def pick_device(name: str) -> torch.device:
    """The device named, or for ``auto`` a GPU when there is one.

    A GPU named by its number becomes this process's own: its global generator is the one that is
    seeded, and what library code draws on it must come from there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
