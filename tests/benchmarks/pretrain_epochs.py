"""Pre-trains on request, an epoch at a time: the worker of ``checkouts.py``, in any checkout.

``python pretrain_epochs.py CHECKOUT ARM BATCH_SIZE``: answers each line of input with the processor
and wall seconds of a step of the epoch it then ran, everything around the steps included. It knows
the modules of this checkout and those of the last one before they were moved into folders.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MOVED = {
    "Session": ("bench.train.loop", "bench.loop"),
    "Monitor": ("bench.train.monitor", "bench.monitor"),
    "RunFolder": ("bench.store.folder", "bench.store"),
    "Pretraining": ("bench.train.pretrain", "bench.train"),
    "build_method": ("bench.train.method", "bench.train.pretrain", "bench.train"),
    "load": ("bench.data.load", "bench.data"),
    "keep_freed_memory": ("bench.machine.allocator", "bench.allocator"),
    "Resolver": ("bench.plan.resolve", "bench.suite"),
    "load_preset": ("bench.plan.layers", "bench.suite"),
    "parse_overrides": ("bench.plan.typed", "bench.suite"),
    "parse_arm": ("bench.plan.typed", "bench.suite"),
}


def found(name: str) -> Any:
    """The thing of this name in whichever of its modules this checkout has."""
    for module in MOVED[name]:
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"this checkout has no {name} in any of {MOVED[name]}")


def main(checkout: str, arm: str, batch_size: str) -> None:
    sys.path.insert(0, checkout)
    import torch

    from bench.streams import Streams

    torch.set_num_threads(1)
    found("keep_freed_memory")()
    overrides = found("parse_overrides")([f"pretrain.batch_size={batch_size}"])
    resolver = found("Resolver")((*found("load_preset")("digits"), overrides))
    config = resolver.resolve(found("parse_arm")(arm), 10**5, 0)
    images = found("load")(config, "")
    steps = len(images.train) // int(batch_size)
    started: list[tuple[float, float]] = []

    class Turns(found("Monitor")):  # type: ignore[misc]
        """Waits for a line at the end of each epoch."""

        def log(self, **values: Any) -> None:
            if not values["epoch"]:
                return
            for cpu, wall in started:
                taken = (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps
                print(*taken, flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            started[:] = [(time.process_time(), time.perf_counter())]

    with tempfile.TemporaryDirectory() as folder:
        monitor = Turns(found("RunFolder")(Path(folder)))
        session = found("Session")(torch.device("cpu"), Streams(0, 0), monitor)
        pretraining = found("Pretraining")
        pretraining.measure_layers = lambda self: {}
        pretraining(found("build_method")(config).train(), images, config, session).run()


if __name__ == "__main__":
    main(*sys.argv[1:4])
