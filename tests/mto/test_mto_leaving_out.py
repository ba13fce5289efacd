"""What a plug-in says is never read, or not to be carried, and what methods make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.api import TokenPlan
from bench.errors import RunError
from mto.config import MTOConfig
from mto.plugin import with_mto
from mto.predict import chosen_patches, share_now
from mto.probe import LayerProbe
from mto.recalibration import recalibration_bias
from tests.mto.arms import METHODS, OFF, batch_for, made
from tests.mto.toy import Toy
from tests.mto.toy import batch_for as toy_batch

PLANNING = ["data2vec", "mae", "simmim"]
"""Methods that ask for a plan."""

SHUT = replace(OFF, recalibration="bias", rows="all", keep_self=False, r_first=0.0, r_depth=1.0)


class Open(LayerProbe):
    """An outer hook that looks at nothing: every layer is shown, so none is closed."""

    def attention(self, layer):
        return None


def stirred(name, config):
    """The method with every parameter moved, so that biases and scales take part."""
    method = made(name, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    for module in method.modules():
        if hasattr(module, "drop"):
            module.drop = 0.0  # it draws one number a weight, and there are fewer weights
    return method


def uneven(method):
    """A batch some of whose images hide fewer patches, where the method takes such masks."""
    batch = batch_for(method)
    if not hasattr(method, "hidden_count"):
        batch.hidden[0, :20] = False
        batch.hidden[2, 30:40] = False
        assert len(batch.hidden.sum(1).unique()) > 2
    return batch


def loss_and_gradients(method, hook):
    method.zero_grad(set_to_none=True)
    output = method(uneven(getattr(method, "method", method)), hook)
    total = output.loss if output.penalty is None else output.loss + output.penalty
    total.backward()
    grads = {n: p.grad for n, p in method.named_parameters() if p.requires_grad}
    return output, grads


def operations(method, hook):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method(batch_for(method), hook)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", PLANNING)
def test_keys_and_values_that_nobody_reads_are_not_computed(name):
    method = made(name, SHUT).eval()
    all_layers, first_half = operations(method, None), made(name, replace(SHUT, r_depth=0.5)).eval()
    shown = operations(method, Open())
    assert all_layers < operations(first_half, None) < shown
    assert shown == operations(made(name).eval(), None)


@pytest.mark.parametrize("change", [{}, {"r_depth": 0.5}, {"lambda_e": 0.1, "lambda_spa": 0.1}])
@pytest.mark.parametrize("name", METHODS)
def test_leaving_out_what_is_never_read_changes_neither_loss_nor_gradients(name, change):
    method = stirred(name, replace(SHUT, **change, sample_images=1.0))
    short, short_grads = loss_and_gradients(method, None)
    full, full_grads = loss_and_gradients(method, Open())
    torch.testing.assert_close(short.loss, full.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short.prediction, full.prediction, atol=1e-4, rtol=1e-4)
    assert short.terms.keys() == full.terms.keys()
    for term in short.terms:
        torch.testing.assert_close(short.terms[term], full.terms[term], atol=1e-5, rtol=1e-5)
    assert short_grads.keys() == full_grads.keys()
    for key, gradient in full_grads.items():
        scale = gradient.abs().max()
        assert (short_grads[key] - gradient).abs().max() <= 1e-5 * max(scale, 1), key


class Asks:
    """A hook with a plan of its own; in layers that are shown all rows read visible tokens only."""

    def __init__(self, **plan):
        self.given = plan

    def plan(self, layers, hidden, stream=""):
        closed = (True,) * (layers - self.given.get("entry", 0))
        return TokenPlan(**{"closed": closed, **self.given}) if self.given else None

    def embedding(self, embedding):
        pass

    def attention(self, layer):
        return recalibration_bias(layer.hidden, 0.0, layer.query.dtype, "all", keep_self=False)


def halves(hidden):
    """Two disjoint, ragged sets of hidden patches that are all of them together."""
    first = hidden & (torch.arange(hidden.shape[1]) % 3 < 2)
    return first, hidden & ~first


@pytest.mark.parametrize("name", ["data2vec", "simmim"])
@pytest.mark.parametrize("shown", [False, True])
def test_the_loss_of_some_patches_is_the_full_loss_restricted_to_them(name, shown):
    """Nobody reads masked tokens, so those left out change nothing for the others."""
    method = stirred(name, None)
    batch = uneven(method)
    parts = halves(batch.hidden)
    full = method(batch, Asks())
    closed = {"closed": (False,) * 3} if shown else {}
    few = [method(batch, Asks(predicted=part, **closed)) for part in parts]
    for part, output in zip(parts, few, strict=True):
        expected = full.prediction[part[batch.hidden]]
        torch.testing.assert_close(output.prediction, expected, atol=1e-5, rtol=1e-5)
    weights = [part.sum() / batch.hidden.sum() for part in parts]
    mean = sum(w * output.loss for w, output in zip(weights, few, strict=True))
    torch.testing.assert_close(mean, full.loss, atol=1e-5, rtol=1e-5)


def test_the_same_holds_in_a_decoder():
    method = stirred("mae", None)
    batch = batch_for(method)
    first = chosen_patches(torch.rand(batch.hidden.shape), batch.hidden, 0.25)
    parts = (first, batch.hidden & ~first)
    full = method(batch, Asks())
    few = [method(batch, Asks(predicted=part)) for part in parts]
    prediction = full.prediction.flatten(0, 1)
    for part, output in zip(parts, few, strict=True):
        expected = prediction[part[batch.hidden]]
        torch.testing.assert_close(output.prediction.flatten(0, 1), expected, atol=1e-5, rtol=1e-5)
    mean = 0.25 * few[0].loss + 0.75 * few[1].loss
    torch.testing.assert_close(mean, full.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PLANNING)
def test_tokens_that_enter_late_are_tokens_that_early_layers_leave_alone(name):
    method = stirred(name, None)
    batch = uneven(method)
    entering = method(batch, Asks(entry=1))
    blocks = method.decoder_blocks if name == "mae" else method.vit.blocks
    hidden = torch.nn.functional.pad(batch.hidden, (1, 0))[:, :, None]
    handle = blocks[0].register_forward_hook(
        lambda block, inputs, output: torch.where(hidden, inputs[0], output)
    )
    kept = method(batch, Asks())
    handle.remove()
    torch.testing.assert_close(entering.loss, kept.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entering.prediction, kept.prediction, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(entering.loss, method(batch, Asks()).loss, atol=1e-4)


@pytest.mark.parametrize("name", PLANNING)
@pytest.mark.parametrize("change", [{"predict_share": 0.5}, {"enter_depth": 0.4}], ids=str)
def test_less_is_carried_and_every_weight_still_learns(name, change):
    whole, method = made(name, SHUT), made(name, replace(SHUT, **change))
    assert operations(method, None) < operations(whole, None)
    output = method(batch_for(method))
    output.loss.backward()
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


def test_half_of_each_images_hidden_patches_are_drawn_from_its_own_stream():
    method = made("simmim", replace(OFF, predict_share=0.5))
    batch = batch_for(method)
    patches = batch.hidden.sum() * 0.5
    assert len(method(batch).prediction) == patches
    alone = replace(
        batch, images=batch.images[2:3], hidden=batch.hidden[2:3], noise=batch.noise.select([2])
    )
    method = made("simmim", replace(SHUT, predict_share=0.5)).eval()
    each = len(method(alone).prediction)
    together = method(batch).prediction[2 * each : 3 * each]
    torch.testing.assert_close(method(alone).prediction, together, atol=1e-5, rtol=1e-5)
    assert len(method(replace(batch, noise=None)).prediction) == batch.hidden.sum()


def test_the_share_may_grow_over_the_run():
    config = MTOConfig(predict_share=0.2, predict_time="rising")
    assert [share_now(config, p) for p in (0, 0.5)] == pytest.approx([0.2, 0.6])
    assert share_now(replace(config, predict_time="constant"), 0.5) == 0.2
    method = made("simmim", replace(SHUT, predict_share=0.25, predict_time="rising"))
    batch = batch_for(method)
    sizes = [len(method(replace(batch, progress=p)).prediction) for p in (0.0, 0.5, 0.999)]
    assert sizes == [6 * count for count in (10, 25, 40)]


def test_chosen_patches_are_hidden_ones_with_the_smallest_draws():
    hidden = torch.tensor([[True, True, False, True], [False, False, False, True]])
    draws = torch.tensor([[0.9, 0.1, 0.0, 0.5], [0.1, 0.2, 0.3, 0.9]])
    chosen = chosen_patches(draws, hidden, 0.6)
    assert chosen.nonzero().tolist() == [[0, 1], [0, 3], [1, 3]]
    least = chosen_patches(draws, hidden, 0.01)
    assert least.nonzero().tolist() == [[0, 1], [1, 3]], "one at least"


def test_a_method_that_asks_for_no_plan_cannot_leave_tokens_out_and_says_so():
    method = with_mto(Toy(), replace(SHUT, predict_share=0.5))
    with pytest.raises(RunError, match="no plan"):
        method(toy_batch(Toy()))


def test_a_method_that_asks_for_no_plan_gets_the_bias():
    """With r = 0 in all rows, what one masked patch is told alters no other, plan or not."""
    assert with_mto(Toy(), SHUT)(toy_batch(Toy())).terms["mto.schedule.2"] == 0
