"""The layer probe: right numbers, no effect, bare and wrapped methods alike."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

import tests.mto.oracles as oracle
from bench.api import Batch
from mto.config import MTOConfig
from mto.plugin import with_mto
from mto.probe import LayerProbe
from tests.mto.toy import Toy, batch_for, generators

EDGES = {"mass_to_masked", "masked_to_masked", "masked_to_visible"}
KEYS = {"heterogeneity", "heterogeneity_cosine", "token_distance", *EDGES}


class Recorder:
    """Keeps what a probe is shown."""

    def __init__(self):
        self.layers, self.entered = [], None

    def plan(self, layers, hidden, stream=""):
        return None

    def embedding(self, embedding):
        self.entered = embedding

    def attention(self, layer):
        self.layers.append(layer)


def made(config=None):
    method = Toy() if config is None else with_mto(Toy(), config)
    method.reset_parameters(generators())
    return method


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def edge(s, masked, visible):
    """Mass of masked rows on other masked columns, and on visible ones."""
    rows = {i: oracle.softmax(s[i]) for i in masked}
    onto = {"masked_to_masked": masked, "masked_to_visible": visible}
    return {
        name: mean(sum(row[j] for j in columns if j != i) for i, row in rows.items())
        for name, columns in onto.items()
    }


def test_edges_shut_by_recalibration_carry_no_mass():
    shut = replace(MTOConfig.only(["recal"]), r_depth=1.0)
    for rows, nought in (
        ("visible", {"mass_to_masked"}),
        ("masked", {"masked_to_masked"}),
        ("all", {"mass_to_masked", "masked_to_masked"}),
    ):
        probe = LayerProbe()
        method = made(replace(shut, rows=rows))
        method(batch_for(method), probe)
        summary = probe.summary()
        assert {name for name in EDGES if not any(summary[name])} == nought


def test_summary_equals_the_definitions():
    method, probe, seen = made(), LayerProbe(tau=0.5), Recorder()
    batch = batch_for(method)
    with torch.no_grad():
        method(batch, probe)
        method(batch, seen)
    summary = probe.summary()
    assert set(summary) == KEYS
    for layer in seen.layers:
        layer = replace(layer, bias=layer.bias.detach())
        images = range(len(layer.hidden))
        parts = [oracle.sets(layer, i) for i in images]
        expected = {
            "heterogeneity": mean(
                oracle.heterogeneity(oracle.mean_logits(layer, i), *parts[i], 0.5) for i in images
            ),
            "heterogeneity_cosine": mean(
                oracle.cosine_heterogeneity(layer.tokens[i], *parts[i]) for i in images
            ),
            "mass_to_masked": mean(
                oracle.mass(oracle.logits(layer, i, head), *parts[i])
                for i in images
                for head in range(2)
            ),
        }
        expected |= {
            name: mean(
                edge(oracle.logits(layer, i, head), *parts[i])[name]
                for i in images
                for head in range(2)
            )
            for name in ("masked_to_masked", "masked_to_visible")
        }
        for name, value in expected.items():
            assert math.isclose(summary[name][layer.index], value, rel_tol=1e-4), name
    tokens, token = seen.entered.tokens.tolist(), seen.entered.mask_token.flatten().tolist()
    distance = mean(oracle.distance(image, token, False) for image in tokens)
    assert math.isclose(summary["token_distance"], distance, rel_tol=1e-3)


def test_several_passes_are_averaged_over_images():
    method = made()
    batch = batch_for(method)
    whole, parts = LayerProbe(), LayerProbe()
    method(batch, whole)
    for piece in (slice(0, 2), slice(2, 6)):
        method(Batch(batch.images[piece], batch.hidden[piece]), parts)
    for name in KEYS:
        first, second = torch.tensor(whole.summary()[name]), torch.tensor(parts.summary()[name])
        torch.testing.assert_close(first, second)


def test_it_moves_no_gradient():
    for config in (None, MTOConfig(sample_images=1.0)):
        gradients = []
        for hook in (None, LayerProbe()):
            method = made(config)
            output = method(batch_for(method), hook)
            (output.loss + (output.penalty or 0)).backward()
            gradients.append([p.grad for p in method.parameters()])
        for first, second in zip(*gradients, strict=True):
            torch.testing.assert_close(first, second)


def test_a_cap_on_images_measures_the_first_of_each_batch():
    method = made()
    batch, few, first = batch_for(method), LayerProbe(images=2), LayerProbe()
    method(batch, few)
    method(Batch(batch.images[:2], batch.hidden[:2]), first)
    torch.testing.assert_close(
        torch.tensor(few.summary()["heterogeneity"]), torch.tensor(first.summary()["heterogeneity"])
    )


def test_a_distinct_token_shows_as_a_larger_distance():
    bare, distinct = LayerProbe(), LayerProbe()
    method, wrapped = made(), made(MTOConfig.only(["init"]))
    method(batch_for(method), bare)
    wrapped(batch_for(method), distinct)
    assert distinct.summary()["token_distance"] > 2 * bare.summary()["token_distance"]


def test_a_probe_that_saw_nothing_says_so():
    summary = LayerProbe().summary()
    assert summary["heterogeneity"] == []
    assert "token_distance" not in summary
