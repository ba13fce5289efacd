"""One forward pass seen from inside: what is left out, drawn, biased and put where."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from bench.api import MaskEmbedding, MethodOutput, TokenPlan
from bench.errors import RunError
from mto.config import MTOConfig
from mto.plugin import _Pass, with_mto
from mto.probe import LayerProbe
from tests.mto.arms import batch_for as real_batch
from tests.mto.arms import made as real
from tests.mto.toy import Toy, batch_for, generators

OFF = MTOConfig.only(())
SHUT = replace(OFF, recalibration="bias", rows="all", keep_self=False, r_first=0.0, r_depth=1.0)
LOSSES = replace(MTOConfig.only(["spa", "e", "r"]), sample_images=1.0, rank_margin=0.9)


class Recorder:
    """An outer hook that keeps the layers it is shown."""

    def __init__(self):
        self.layers = []

    def plan(self, layers, hidden, stream=""):
        return None

    def embedding(self, embedding):
        return None

    def attention(self, layer):
        self.layers.append(layer)


class Spread:
    """Draws made beforehand, wherever new tensors go; keeps which draws were asked for."""

    def __init__(self, stream):
        self.stream, self.asked = stream, []

    @property
    def size(self):
        return self.stream.size

    def uniform(self, count, offset=0):
        self.asked.append((offset, offset + count))
        with torch.device("cpu"):
            return self.stream.uniform(count, offset)


def toy(config):
    method = with_mto(Toy(), config)
    method.reset_parameters(generators())
    return method


def planned(config, layers=4, noise=True):
    batch = batch_for(Toy())
    batch = batch if noise else replace(batch, noise=None)
    return _Pass(config, batch, None).plan(layers, batch.hidden)


# --- what may be left out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "closed", "entry"),
    [
        ({}, (True,) * 4, 0),
        ({"r_depth": 0.5}, (True, True, False, False), 0),
        ({"r_depth": 0.5, "enter_depth": 0.5}, (True, False), 2),
        ({"enter_depth": 0.1}, (True,) * 4, 0),
        ({"lambda_e": 0.1}, (False, True, True, True), 0),
        ({"lambda_r": 0.1, "rank_layers": 2}, (False, True, True, False), 0),
        ({"lambda_spa": 0.1}, (True,) * 4, 0),
        ({"lambda_spa": 0.1, "spa_form": "row_entropy"}, None, 0),
        ({"rows": "masked"}, None, 0),
        ({"rows": "visible", "enter_depth": 0.5}, (False, False), 2),
        ({"r_first": 0.5}, None, 0),
    ],
    ids=str,
)
def test_layers_close_where_nobody_reads_masked_tokens_and_nothing_is_measured(
    change, closed, entry
):
    plan = planned(replace(SHUT, **change))
    if closed is None:
        assert plan is None, "all is seen and predicted as ever"
    else:
        assert (plan.closed, plan.entry, plan.predicted) == (closed, entry, None)


def test_without_a_stream_every_hidden_patch_is_predicted():
    few = replace(OFF, predict_share=0.5)
    assert planned(few).predicted.any()
    assert planned(few, noise=False) is None


def test_a_method_may_show_layers_that_its_plan_has_closed():
    """They are not measured twice: the losses are those of a method that asks for no plan."""

    class Shows(Toy):
        def forward(self, batch, hook=None):
            plan = hook.plan(self.shape.depth, batch.hidden)
            assert isinstance(plan, TokenPlan)
            return super().forward(batch, hook)

    config = replace(SHUT, r_depth=0.5, lambda_spa=0.1, sample_images=1.0)
    batch, terms = batch_for(Toy()), []
    for kind in (Toy, Shows):
        method = with_mto(kind(), config)
        method.reset_parameters(generators())
        terms.append(method(batch).terms)
    assert terms[0] == terms[1]
    assert terms[0]["mto.spa"] > 0, "of the last layer, which is not recalibrated"


@pytest.mark.parametrize("term", ["recal", "spa", "e", "r"])
def test_a_method_that_shows_no_layer_is_refused_by_every_term_that_acts_on_layers(term):
    observed = _Pass(MTOConfig.only([term]), batch_for(Toy()), None)
    with pytest.raises(RunError, match="no attention hook"):
        observed.added_to(MethodOutput(torch.tensor(1.0)))


def test_a_method_whose_mask_tokens_enter_unseen_has_no_distance_to_lose():
    observed = _Pass(MTOConfig.only(["dist"]), batch_for(Toy()), None)
    output = observed.added_to(MethodOutput(torch.tensor(1.0)))
    assert output.penalty is None
    assert not output.terms


# --- what is drawn and where it is put ------------------------------------------------------------


def test_no_draw_of_an_image_serves_two_purposes():
    config = replace(
        LOSSES, heads="each", sample_heads=1, sample_images=0.5, predict_share=0.5, r_first=1.0
    )
    method = real("simmim", config)
    batch = real_batch(method)
    spread = Spread(batch.noise)
    method.train()(replace(batch, noise=spread))
    asked = sorted(spread.asked)
    assert len(asked) == 3, "for drop path, for images with their heads, and for patches"
    assert all(end <= first for (_, end), (first, _) in pairwise(asked))


@pytest.mark.parametrize(
    "config",
    [
        replace(MTOConfig.only(["all"]), rows="visible", sample_images=0.7),
        replace(LOSSES, heads="each", sample_heads=1, heterogeneity="cosine"),
        replace(LOSSES, recalibration="exclude", r_first=0.5, rows="all", keep_self=True),
        replace(LOSSES, affinity="tokens", spa_form="row_entropy", rank_form="pairwise"),
        replace(LOSSES, sample_images=1e-9),
        replace(SHUT, lambda_spa=0.1, predict_share=0.5),
    ],
    ids=["all", "heads", "exclude", "tokens", "none", "shut"],
)
def test_everything_is_made_on_the_device_of_the_batch(config):
    """Where new tensors would go elsewhere by default; so it runs on a GPU without being told."""
    batch = batch_for(Toy())
    batch = replace(batch, noise=Spread(batch.noise))
    method, probe = toy(replace(config, predict_share=1.0)), LayerProbe(images=3)
    expected = method(batch)
    with torch.device("meta"):
        output = method(batch)
        if config.predict_share < 1:
            plan = _Pass(config, batch, None).plan(3, batch.hidden)
            assert plan.predicted.device == batch.hidden.device
        method(batch, probe)
    assert torch.equal(output.loss, expected.loss)
    assert torch.equal(output.penalty, expected.penalty)


def test_mask_tokens_are_drawn_where_their_generator_is():
    method = toy(MTOConfig.only(["init"]))
    drawn = method.base.mask_token.clone()
    method.base.reset_parameters = lambda generator_for: None
    with torch.device("meta"):
        method.reset_parameters(generators())
    assert torch.equal(method.base.mask_token, drawn)


# --- biases ---------------------------------------------------------------------------------------


def biases(config):
    """What each of the toy's three layers gets, and which tokens are masked."""
    batch, seen = batch_for(Toy()), Recorder()
    method = Toy()
    method.reset_parameters(generators())
    method(batch, seen)
    observed = _Pass(config, batch, None)
    return [observed.attention(layer) for layer in seen.layers], seen.layers[0].hidden


@pytest.mark.parametrize("kind", ["bias", "exclude"])
def test_layers_that_are_not_recalibrated_get_no_bias_at_all(kind):
    given, _ = biases(replace(SHUT, recalibration=kind, r_depth=0.5))
    assert [bias is None for bias in given] == [False, False, True]


@pytest.mark.parametrize("r", [0.2, 0.75])
def test_exclusion_shuts_the_share_of_masked_columns_that_r_leaves_out(r):
    (bias, *_), hidden = biases(replace(SHUT, recalibration="exclude", rows="visible", r_first=r))
    shut = (bias[:, 0, 0] == -torch.inf).sum(1)
    assert shut.tolist() == [round(count * (1 - r)) for count in hidden.sum(1).tolist()]


# --- losses as the settings have them -------------------------------------------------------------


def terms(**changes):
    found = toy(replace(LOSSES, **changes))(batch_for(Toy())).terms
    return {name: float(found[f"mto.{name}"]) for name in ("spa", "e", "r")}


def test_signs_and_forms_reach_the_losses():
    """Three layers and a margin that no difference of H exceeds, so that sums are linear."""
    plain, pairs = terms(), terms(rank_form="pairwise")
    turned = terms(spa_sign="high", e_sign="low", rank_sign="rising")
    assert plain["spa"] + turned["spa"] == pytest.approx(1)
    assert plain["e"] + turned["e"] == pytest.approx(1)
    assert plain["r"] + turned["r"] == pytest.approx(4 * LOSSES.rank_margin)
    assert plain["r"] != pytest.approx(turned["r"])
    assert pairs["r"] == pytest.approx(2 * plain["r"] - LOSSES.rank_margin)


def test_one_head_of_two_is_read_where_one_is_asked_for():
    assert terms(heads="each", sample_heads=1)["spa"] != terms(heads="each")["spa"]
    assert terms(heads="each", sample_heads=2)["spa"] == pytest.approx(terms(heads="each")["spa"])


def test_mass_that_recalibration_leaves_is_read():
    """Only r = 0 takes it all; a layer of another r is measured."""
    rows = {"spa_rows": "masked", "rows": "masked", "recalibration": "bias", "keep_self": True}
    found = [terms(**rows, r_first=r)["spa"] for r in (0.0, 0.5, 1.0)]
    assert found[0] == 0
    assert 0 < found[1] < found[2]


def test_settings_of_the_conformance_suite_leave_nothing_to_a_draw():
    config = replace(MTOConfig.only(["all"]), **MTOConfig.tiny())
    batch, method = batch_for(Toy()), toy(config)
    drawn, plain = method(batch).penalty, method(replace(batch, noise=None)).penalty
    assert torch.equal(drawn, plain)


def test_a_probe_finds_no_distance_where_no_patch_stands_beside_the_mask_token():
    probe = LayerProbe()
    nothing = torch.zeros(2, 0, 4)
    probe.embedding(MaskEmbedding(nothing, torch.ones(1, 1, 4), torch.ones(2, 3).bool()))
    assert "token_distance" not in probe.summary()
