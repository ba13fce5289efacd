"""A method with two stacks of layers: each is measured by itself, their losses averaged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.api import MethodOutput
from mto.config import MTOConfig
from mto.plugin import with_mto
from mto.probe import LayerProbe
from tests.mto.toy import SHAPE, Toy, batch_for, generators

DEPTHS = {"left": 3, "right": 2}


class Named:
    """Passes one toy's calls on under the name of its stream."""

    def __init__(self, hook, stream):
        self.hook, self.stream = hook, stream

    def embedding(self, embedding):
        self.hook.embedding(replace(embedding, stream=self.stream))

    def attention(self, layer):
        return self.hook.attention(replace(layer, stream=self.stream))


class Twins(Toy):
    """Two toys of unequal depth side by side, each a stream."""

    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleDict(toys())

    def forward(self, batch, hook=None):
        outputs = [
            toy(batch, None if hook is None else Named(hook, name))
            for name, toy in self.towers.items()
        ]
        return MethodOutput(sum(o.loss for o in outputs))

    def mask_tokens(self):
        return {f"towers.{n}.mask_token": t.mask_token for n, t in self.towers.items()}


def toys():
    made = {name: Toy(replace(SHAPE, depth=depth)) for name, depth in DEPTHS.items()}
    for seed, toy in enumerate(made.values()):
        toy.reset_parameters(generators(seed))
    return made


@pytest.mark.parametrize("term", ["dist", "spa", "e", "r"])
def test_a_loss_over_two_streams_is_the_mean_of_each_ones_own(term):
    config = replace(MTOConfig.only([term]), sample_images=1.0, e_layers=1, init="baseline")
    batch = batch_for(Toy())
    alone = [with_mto(toy, config)(batch).penalty for toy in toys().values()]
    together = with_mto(Twins(), config)(batch).penalty
    assert alone[0] != alone[1]
    torch.testing.assert_close(together, sum(alone) / 2)


def test_each_stream_is_recalibrated_by_its_own_depth():
    config = replace(MTOConfig.only(["recal"]), r_first=0.5, r_depth=0.5)
    terms = with_mto(Twins(), config)(batch_for(Toy())).terms
    schedule = {n: float(v) for n, v in terms.items() if n.startswith("mto.schedule")}
    assert schedule == {
        "mto.schedule.left.0": 0.5,
        "mto.schedule.left.1": 0.5,
        "mto.schedule.left.2": 1.0,
        "mto.schedule.right.0": 0.5,
        "mto.schedule.right.1": 1.0,
    }


def test_the_probe_lists_one_stream_after_the_other():
    batch, probe = batch_for(Toy()), LayerProbe()
    expected = []
    with torch.no_grad():
        Twins()(batch, probe)
        for toy in toys().values():
            single = LayerProbe()
            toy(batch, single)
            expected.append(single.summary())
    found = probe.summary()
    for key in ("heterogeneity", "heterogeneity_cosine", "mass_to_masked"):
        assert found[key] == expected[0][key] + expected[1][key]
    mean = (expected[0]["token_distance"] + expected[1]["token_distance"]) / 2
    assert found["token_distance"] == pytest.approx(mean)
