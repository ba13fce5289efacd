"""The optimizer with its lists made once against PyTorch's own, bit for bit, resumed or not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.train.adamw import AdamW

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "fused": True}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def groups(module: nn.Module) -> list[dict[str, object]]:
    first, *rest = module.parameters()
    return [{"params": [first], "weight_decay": 0.1, "lr": 1e-3}, {"params": rest}]


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range, skip: int = -1):
    for step in steps:
        optimizer.zero_grad()
        data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        module(data).square().sum().backward()
        if step == skip:
            next(module.parameters()).grad = None
        optimizer.step()


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("skip", [-1, 3])
def test_equals_pytorchs(skip):
    ours, theirs = model(), model()
    train(ours, AdamW(groups(ours), **SETTINGS), range(8), skip)
    train(theirs, torch.optim.AdamW(groups(theirs), **SETTINGS), range(8), skip)
    assert equal(ours, theirs)


def test_a_part_that_learns_later_is_taken_up():
    """Its first gradient comes when the others' states are there already."""
    trained = []
    for kind in (AdamW, torch.optim.AdamW):
        module = model()
        optimizer = kind(groups(module), **SETTINGS)
        last = module[2]
        for step in range(6):
            optimizer.zero_grad()
            data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            (module(data) if step > 2 else module[:2](data)).square().sum().backward()
            assert (last.weight.grad is None) is (step <= 2)
            optimizer.step()
        trained.append(module)
    assert equal(*trained)


def test_goes_on_from_a_state_bit_for_bit():
    whole, halves = model(), model()
    train(whole, AdamW(groups(whole), **SETTINGS), range(8))
    first = AdamW(groups(halves), **SETTINGS)
    train(halves, first, range(4))
    other = copy.deepcopy(halves)
    second = AdamW(groups(other), **SETTINGS)
    train(other, second, range(90, 92))
    other.load_state_dict(halves.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(other, second, range(4, 8))
    assert equal(whole, other)


@pytest.mark.parametrize("overflow", [-1, 2])
def test_gradients_are_unscaled_and_steps_that_overflow_skipped(overflow):
    trained = []
    for kind in (AdamW, torch.optim.AdamW):
        module, scaler = model(), torch.amp.GradScaler("cpu")
        optimizer = kind(groups(module), **SETTINGS)
        for step in range(5):
            optimizer.zero_grad()
            data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            loss = module(data).square().sum()
            scaler.scale(loss * float("inf") if step == overflow else loss).backward()
            scaler.step(optimizer)
            scaler.update()
        trained.append(module)
    assert equal(*trained)
    assert all(p.isfinite().all() for p in trained[0].parameters())
