"""MTO on the methods of the table: off it is the baseline bit for bit, on it acts and trains."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import registry
from bench.api import Batch, VisionShape
from bench.streams import Streams
from mto.config import MTOConfig
from mto.plugin import with_mto
from mto.probe import LayerProbe

SHAPE = VisionShape(image_size=16, patch_size=2, channels=3, width=24, depth=3, heads=3)
SMALL = {
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "mask_patch_size": 4,
    "min_block": 4,
    "target_layers": 2,
}
OFF = MTOConfig.only(())
METHODS = registry.METHODS.names()


def hyper(name):
    kind = registry.METHODS.config(name)
    known = {f.name for f in fields(kind)}
    return kind(**{key: value for key, value in SMALL.items() if key in known})


def made(name, config=None):
    method = registry.METHODS.load(name)(SHAPE, hyper(name))
    if config is not None:
        method = with_mto(method, config)
    streams = Streams(0, 1)
    method.reset_parameters(lambda parameter: streams.generator("init", parameter))
    return method


def batch_for(method, step=0, size=6):
    streams = Streams(0, 1)
    ids = torch.arange(size)
    images = torch.randn(size, 3, 16, 16, generator=torch.Generator().manual_seed(step))
    hidden = method.draw_hidden(streams.samples("mask", step, ids))
    return Batch(images, hidden, streams.samples("drop path", step, ids))


def trained(method, steps=4):
    optimizer = torch.optim.AdamW(
        [p for p in method.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.05
    )
    losses = []
    for step in range(steps):
        torch.manual_seed(step)  # data2vec's attention dropout draws from the global generator
        output = method(batch_for(method, step))
        optimizer.zero_grad()
        total = output.loss if output.penalty is None else output.loss + output.penalty
        total.backward()
        optimizer.step()
        method.after_step(step, steps)
        losses.append(output.loss.item())
    return losses


def plain(method):
    return {key.removeprefix("base."): value for key, value in method.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_switched_off_it_is_the_baseline_bit_for_bit(name):
    bare, wrapped = made(name), made(name, OFF)
    assert trained(bare) == trained(wrapped)
    first, second = plain(bare), plain(wrapped)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", METHODS)
def test_measuring_without_weight_moves_no_number(name):
    tiny = 1e-45
    config = replace(OFF, lambda_spa=tiny, lambda_e=tiny, lambda_r=tiny, lambda_dist=tiny)
    assert trained(made(name)) == trained(made(name, config))


@pytest.mark.parametrize("name", METHODS)
def test_only_the_mask_token_starts_elsewhere(name):
    first, second = plain(made(name)), plain(made(name, MTOConfig()))
    assert {key for key in first if not torch.equal(first[key], second[key])} == {"mask_token"}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_with_all_its_parts_it_trains_and_stays_finite(name, share):
    method = made(name, replace(MTOConfig.only(["all"]), sample_images=share))
    losses = trained(method)
    assert all(torch.tensor(losses).isfinite())
    assert losses != trained(made(name))
    output = method(batch_for(method))
    assert {"mim", "mto.dist", "mto.spa", "mto.e", "mto.r"} <= set(output.terms)


@pytest.mark.parametrize("name", METHODS)
def test_the_probe_measures_both_arms_and_sees_the_recalibration(name):
    bare, wrapped = LayerProbe(), LayerProbe()
    for probe, config in ((bare, None), (wrapped, MTOConfig(init_std=1.0))):
        method = made(name, config).eval()
        with torch.no_grad():
            method(batch_for(method), probe)
    depth = len(bare.summary()["heterogeneity"])
    assert depth == (2 if name == "mae" else 3)
    assert min(bare.summary()["mass_to_masked"]) > 0.2
    assert wrapped.summary()["mass_to_masked"][0] == 0
    assert wrapped.summary()["token_distance"] > 1.5 * bare.summary()["token_distance"]


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_receives_the_bare_encoder(name):
    bare, wrapped = made(name), made(name, MTOConfig())
    assert type(wrapped.encoder()) is type(bare.encoder())
    assert wrapped.encoder().state_dict().keys() == bare.encoder().state_dict().keys()
    assert not any("mto" in key or "base" in key for key in wrapped.encoder().state_dict())


# --- what is never read is not computed -----------------------------------------------------------

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
            module.drop = (
                0.0  # attention dropout draws one number a weight, of which there are fewer
            )
    return method


def loss_and_gradients(method, hook, size=6):
    method.zero_grad(set_to_none=True)
    output = method(batch_for(method, size=size), hook)
    total = output.loss if output.penalty is None else output.loss + output.penalty
    total.backward()
    grads = {n: p.grad for n, p in method.named_parameters() if p.requires_grad}
    return output, grads


def operations(method, hook):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method(batch_for(method), hook)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", METHODS)
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
