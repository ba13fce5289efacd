"""Flags that say with what a run is computed: of the main command and of a single run alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def natural(text: str) -> int:
    """A whole number from 0 on, as an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)


def between(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number from ``low`` to ``high``, as an argument."""

    def read(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            wanted = f"a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}")
        return int(text)

    return read


def positive(text: str) -> float:
    """A number above 0, as an argument."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above 0")
    return value


def add_resource_flags(group: argparse._ActionsContainer) -> None:
    """Device, threads, workers and memory, and for a run states and trackers."""
    add_device_flags(group)
    add = group.add_argument
    add("--checkpoint-every", type=positive, default=60.0, metavar="S", help="seconds a state")
    add("--track", nargs="+", default=[], metavar="NAME", help="trackers: see 'ls trackers'")


def add_device_flags(group: argparse._ActionsContainer) -> None:
    """Device, threads, workers, memory."""
    add = group.add_argument
    add("--threads", type=natural, default=0, help="CPU threads a run (0: automatic)")
    add("--workers", type=natural, default=None, help="data workers a run")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--batch-size", type=natural, default=0, help="images at once on a device")
    add("--strict-images", action="store_true", help="an unreadable image file is an error")
    add("--compile", action="store_true", help="compile training steps (torch.compile)")
