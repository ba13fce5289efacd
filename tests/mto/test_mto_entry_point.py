"""A method of another package, found through its entry point and wrapped by name."""

from __future__ import annotations

import pytest
import torch

from bench import registry
from bench.streams import Streams
from mto.config import MTOConfig
from tests.mto.toy import SHAPE, Toy, batch_for

ENTRY_POINTS = "[mto_bench.methods]\ntoy = tests.mto.toy:Toy\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution on the path whose entry point offers the method ``toy``."""
    folder = tmp_path / "toy_method-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-method\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    registry._points.cache_clear()
    yield
    registry._points.cache_clear()


@pytest.mark.usefixtures("installed")
def test_mto_wraps_a_method_it_never_heard_of():
    assert "toy" in registry.METHODS.names()
    bare = registry.METHODS.load("toy")(SHAPE, registry.METHODS.config("toy")())
    assert isinstance(bare, Toy)
    method = registry.PLUGINS.load("mto")(bare, registry.PLUGINS.config("mto").only(["all"]))
    streams = Streams(0, 0)
    method.reset_parameters(lambda name: streams.generator("init", name))
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        output = method(batch_for(method, epoch=step % 3))
        optimizer.zero_grad()
        (output.loss + output.penalty).backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < losses[0]
    assert set(output.terms) >= {"mim", *(f"mto.{name}" for name in ("dist", "spa", "e", "r"))}


@pytest.mark.usefixtures("installed")
def test_the_row_is_named_by_method_plugin_and_terms():
    from bench.plan.resolve import Resolver
    from bench.plan.typed import parse_arm

    model = {"image_size": 8, "patch_size": 2, "channels": 1, "width": 12, "depth": 3, "heads": 2}
    evaluation = {"epochs": 1, "batch_size": 4, "blr": 0.1}
    layer = {
        "data": {"name": "digits", "mean": [0.3], "std": [0.4]},
        "model": model,
        "pretrain": {"batch_size": 8, "blr": 1e-3},
        "finetune": evaluation,
    }
    arms = ["toy", "toy+mto", "toy+mto(spa,recal)", "toy+mto:init"]
    named = [Resolver((layer,)).resolve(parse_arm(text), 10, 0) for text in arms]
    assert [c.arm for c in named] == ["toy", "toy+mto", "toy+mto(recal,spa)", "toy+mto(init)"]
    assert named[2].plugins[0][1] == MTOConfig.only(["spa", "recal"])
