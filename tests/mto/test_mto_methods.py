"""MTO on the methods of the table: off it is the baseline bit for bit, on it acts and trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mto.config import MTOConfig
from mto.probe import LayerProbe
from tests.mto.arms import METHODS, OFF, batch_for, made


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
    method = made(name)
    first, second = plain(method), plain(made(name, MTOConfig.only(["init"])))
    moved = {key for key in first if not torch.equal(first[key], second[key])}
    assert moved == set(method.mask_tokens())


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
    for probe, config in (
        (bare, None),
        (wrapped, MTOConfig(init="distinct", init_std=1.0, rows="visible")),
    ):
        method = made(name, config).eval()
        with torch.no_grad():
            method(batch_for(method), probe)
    depth = len(bare.summary()["heterogeneity"])
    assert depth == {"mae": 2, "bootmae": 4}.get(name, 3)
    assert min(bare.summary()["mass_to_masked"]) > 0.2
    assert wrapped.summary()["mass_to_masked"][0] == 0
    assert wrapped.summary()["token_distance"] > 1.5 * bare.summary()["token_distance"]


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_receives_the_bare_encoder(name):
    bare, wrapped = made(name), made(name, MTOConfig())
    assert type(wrapped.encoder()) is type(bare.encoder())
    assert wrapped.encoder().state_dict().keys() == bare.encoder().state_dict().keys()
    assert not any("mto" in key or "base" in key for key in wrapped.encoder().state_dict())
