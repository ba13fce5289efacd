"""A whole step at ViT-B/16, 224 px, batch 8 on the CPU, against what a user would pick instead.

Forward, backward and optimizer step on all cores, the arms taking turns. The bars: MAE at least
as fast as Hugging Face's, twice as fast in bf16 where the processor multiplies bf16, and SimMIM
and data2vec within 5 % of the time their operations would take at MAE's rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.api import VisionShape
from bench.plan.sections import PretrainConfig
from bench.train.loop import autocast
from bench.train.optim import pretrain_optimizer
from tests.benchmarks import peers
from tests.benchmarks.arms import batch_of, method_of
from tests.benchmarks.side_by_side import Step, race

pytestmark = [pytest.mark.benchmark(group="step"), pytest.mark.timeout(1800)]

SHAPE = VisionShape(image_size=224, patch_size=16, channels=3, width=768, depth=12, heads=12)
BATCH = 8
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
RECIPE = PretrainConfig(epochs=1, batch_size=BATCH, lr=1e-4, blr=0)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


def multiplies_bf16() -> bool:
    facts = Path("/proc/cpuinfo")
    flags = facts.read_text() if facts.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def ours(name: str, precision: str = "fp32") -> Step:
    method = method_of(name, SHAPE)
    optimizer = pretrain_optimizer(method, RECIPE, method.no_weight_decay())
    batch = batch_of(method, BATCH)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            loss = method(batch).loss
        loss.backward()
        optimizer.step()
        method.after_step(0, 100)

    return step


def theirs(build: Callable[[Any], nn.Module], like: str, precision: str = "fp32") -> Step:
    module = build(SHAPE)
    optimizer = pretrain_optimizer(module, RECIPE, set())
    batch = batch_of(method_of(like, SHAPE), BATCH)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            loss = module(batch.images, batch.hidden)
        loss.backward()
        optimizer.step()

    return step


def operations(name: str) -> float:
    """Floating-point operations of a step's forward and backward pass."""
    method = method_of(name, SHAPE)
    batch = batch_of(method, BATCH)
    with FlopCounterMode(display=False) as counter:
        method(batch).loss.backward()
    return float(counter.get_total_flops())


def test_mae_against_its_peers(benchmark: Any) -> None:
    arms = {
        "mae": ours("mae"),
        "Hugging Face": theirs(peers.HuggingFaceMAE, "mae"),
        "lightly": theirs(peers.LightlyMAE, "mae"),
        "timm blocks alone": theirs(peers.TimmBlocks, "mae"),
    }
    ratios = race(benchmark, arms, ROUNDS)
    assert ratios["Hugging Face"] >= 1


def test_mae_in_bf16(benchmark: Any) -> None:
    if not multiplies_bf16():
        pytest.skip("this processor does not multiply bf16")
    arms = {
        "mae, bf16": ours("mae", "bf16"),
        "mae, fp32": ours("mae"),
        "Hugging Face, fp32": theirs(peers.HuggingFaceMAE, "mae"),
        "Hugging Face, bf16": theirs(peers.HuggingFaceMAE, "mae", "bf16"),
    }
    ratios = race(benchmark, arms, ROUNDS)
    assert ratios["Hugging Face, fp32"] >= 2


def test_simmim_against_its_peer(benchmark: Any) -> None:
    race(
        benchmark,
        {"simmim": ours("simmim"), "lightly": theirs(peers.LightlySimMIM, "simmim")},
        ROUNDS,
    )


def test_methods_take_the_time_their_operations_predict(benchmark: Any) -> None:
    names = ("mae", "simmim", "data2vec")
    ratios = race(benchmark, {name: ours(name) for name in names}, ROUNDS)
    counted = {name: operations(name) / operations("mae") for name in names}
    excess = {name: ratios[name] / counted[name] for name in names}
    benchmark.extra_info.update(operations=counted, excess=excess)
    for name in names:
        print(f"  {name:10} operations x{counted[name]:.3f}, time over them x{excess[name]:.3f}")
    assert max(excess.values()) <= 1.05
