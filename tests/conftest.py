"""Shared helpers: tiny studies that go through every stage in about a second."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import settings

from bench.plan import resolve, typed
from bench.plan.config import Resources
from bench.plan.layers import load_preset
from bench.plan.study import Study, make_study
from bench.store.store import Store

# A background shell ignores interrupts, and its children inherit that: some tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MTO_BENCH_CACHE"] = ""  # what one test vets, the next one vets anew
torch.set_num_threads(1)
gc.set_threshold(20_000, 20, 50)  # what is imported stays; walking it takes a tenth of the time
pd.set_option("mode.string_storage", "python")  # as where pyarrow, which needs longer, is not

MEMORY = Path("/dev/shm")
"""A file system in memory: the tests make and remove small files by the thousand, for which some
disks take longer than the tests. At most 50 MB lie there at a time, and what failed."""

roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**30
if roomy and "TMPDIR" not in os.environ:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

TINY = (
    "data.labels=20",
    "data.train_images=1024",
    "model.width=16",
    "model.depth=2",
    "model.heads=2",
    "pretrain.batch_size=512",
    "finetune.epochs=2",
    "finetune.draws=1",
    "finetune.warmup_epochs=0",
    "probe.epochs=2",
    "probe.warmup_epochs=0",
    "mae.decoder_width=16",
    "mae.decoder_depth=2",
    "mae.decoder_heads=2",
)


def tiny_study(
    methods: str, epochs: str = "2", seeds: str = "1", more: Sequence[str] = ()
) -> Study:
    """A study on a two-block model of width 16, resolved as the command line would."""
    layers = (*load_preset("digits"), typed.parse_overrides([*TINY, *more]))
    resolver = resolve.Resolver(layers)
    arms, budgets = typed.parse_arms(methods), typed.parse_epochs(epochs)
    cells = make_study(resolver, arms, budgets, typed.parse_seeds(seeds))
    return Study(cells=cells, preset="digits")


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are laid out but not rendered, which takes longest of a tiny study's report.

    Tests that look at pictures are marked ``drawn``.
    """
    draw = sys.modules.get("bench.report.draw")  # not imported for those that report nothing
    if draw is not None and request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr(draw, "_bytes", lambda figure, form: b"")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, which lasts milliseconds a file; tests of it set their own."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "out")
    found.check_writable()
    return found


@pytest.fixture
def resources() -> Resources:
    return Resources(device="cpu", threads=1)
