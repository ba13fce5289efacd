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
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench import registry
from bench.api import Batch, VisionShape
from bench.config import PretrainConfig
from bench.loop import autocast
from bench.optim import pretrain_optimizer
from bench.streams import Streams
from tests.benchmarks import peers
from tests.benchmarks.side_by_side import Step, race

pytestmark = [pytest.mark.benchmark(group="step"), pytest.mark.timeout(1800)]

SHAPE = VisionShape(image_size=224, patch_size=16, channels=3, width=768, depth=12, heads=12)
BATCH = 8
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
RECIPE = PretrainConfig(epochs=1, batch_size=BATCH, lr=1e-4, blr=0)
STREAMS = Streams(0, 0)
IDS = torch.arange(BATCH)
CPU = torch.device("cpu")


def images() -> Tensor:
    return torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))


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


def our_method(name: str) -> Any:
    method = registry.method(name)(SHAPE, registry.method_config(name)())
    method.reset_parameters(lambda parameter: STREAMS.generator("init", parameter))
    return method


def our_batch(method: Any) -> Batch:
    hidden = method.draw_hidden(STREAMS.samples("mask", 0, IDS))
    return Batch(images(), hidden, STREAMS.samples("drop path", 0, IDS))


def ours(name: str, precision: str = "fp32") -> Step:
    method = our_method(name)
    optimizer = pretrain_optimizer(method, RECIPE, method.no_weight_decay())
    batch = our_batch(method)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            loss = method(batch).loss
        loss.backward()
        optimizer.step()
        method.after_step(0, 100)

    return step


def theirs(build: Callable[[Any], peers.Peer], like: str, precision: str = "fp32") -> Step:
    module, forward = build(SHAPE)
    optimizer = pretrain_optimizer(module, RECIPE, set())
    hidden, pixels = our_batch(our_method(like)).hidden, images()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            loss = forward(pixels, hidden)
        loss.backward()
        optimizer.step()

    return step


def operations(name: str) -> float:
    """Floating-point operations of a step's forward and backward pass."""
    method = our_method(name)
    batch = our_batch(method)
    with FlopCounterMode(display=False) as counter:
        method(batch).loss.backward()
    return float(counter.get_total_flops())


def test_mae_against_its_peers(benchmark: Any) -> None:
    arms = {
        "mae": ours("mae"),
        "Hugging Face": theirs(peers.hugging_face_mae, "mae"),
        "lightly": theirs(peers.lightly_mae, "mae"),
        "timm blocks alone": theirs(peers.timm_blocks, "mae"),
    }
    ratios = race(benchmark, arms, ROUNDS)
    assert ratios["Hugging Face"] >= 1


def test_mae_in_bf16(benchmark: Any) -> None:
    if not multiplies_bf16():
        pytest.skip("this processor does not multiply bf16")
    arms = {
        "mae, bf16": ours("mae", "bf16"),
        "mae, fp32": ours("mae"),
        "Hugging Face, fp32": theirs(peers.hugging_face_mae, "mae"),
        "Hugging Face, bf16": theirs(peers.hugging_face_mae, "mae", "bf16"),
    }
    ratios = race(benchmark, arms, ROUNDS)
    assert ratios["Hugging Face, fp32"] >= 2


def test_simmim_against_its_peer(benchmark: Any) -> None:
    race(
        benchmark,
        {"simmim": ours("simmim"), "lightly": theirs(peers.lightly_simmim, "simmim")},
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
