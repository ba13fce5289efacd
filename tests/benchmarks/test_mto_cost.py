"""What MTO costs: a step and its peak memory against the bare method's, side by side in one run.

ViT-B/16 at 224 pixels, batch 8, CPU. The two arms take turns, so that a slow spell of the machine
meets both, and the ratio is the median over the rounds, of processor time on one thread. The naive
variant computes full attention maps of every layer, head and image outside the fused path. Run:
``tests/benchmarks/run.sh tests/benchmarks/test_mto_cost.py``.
"""

from __future__ import annotations

import gc
import os
import time
import weakref
from dataclasses import replace
from statistics import median

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.api import VisionShape
from bench.plan import layers, resolve, typed
from bench.train.method import build_method
from mto.config import MTOConfig
from mto.plugin import MTO, with_mto
from mto.recalibration import recalibration_bias
from tests.benchmarks.arms import STREAMS, batch_of, method_of

pytestmark = [
    pytest.mark.benchmark(group="mto", max_time=1, timer=time.process_time),
    pytest.mark.timeout(1800),
]

SHAPE = VisionShape(image_size=224, patch_size=16, channels=3, width=768, depth=12, heads=12)
BATCH = 8
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
METHODS = ["simmim", "mae", "data2vec"]
STEP_BAR, MEMORY_BAR = 1.10, 1.15


class NaiveHook:
    """Every loss from full maps [B, H, T, T] of every layer; a new bias in every layer."""

    def __init__(self, config):
        self.config, self.mass, self.h, self.distance = config, [], [], None

    def plan(self, layers, hidden, stream=""):
        return None

    def embedding(self, embedding):
        x = embedding.tokens.detach()
        offset = (embedding.mask_token - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
        self.distance = offset.square().mean(-1).sqrt()

    def attention(self, layer):
        hidden = layer.hidden
        s = layer.query @ layer.key.mT * layer.scale
        s = s if layer.bias is None else s + layer.bias
        bias = recalibration_bias(hidden, 0.0, s.dtype) if layer.index < layer.count / 2 else None
        weights = (s if bias is None else s + bias).softmax(-1)
        leak = (weights * hidden[:, None, None, :]).sum(-1) * ~hidden[:, None]
        self.mass.append(leak.mean(1).sum(-1) / (~hidden).sum(-1))
        seen = (s / self.config.tau).masked_fill(hidden[:, None, None, :], -1e9)
        log = seen.log_softmax(-1)
        entropy = -(log.exp() * log).sum(-1) * hidden[:, None]
        self.h.append(entropy.mean(1).sum(-1) / hidden.sum(-1))
        return bias

    def penalty(self):
        h = torch.stack(self.h)
        fall = (h[1:] - h[:-1]).clamp(min=0).sum(0).mean()
        near = (1 - self.distance / 3).clamp(min=0).mean()
        return 0.1 * (torch.stack(self.mass).mean() + (1 - h[0]).mean() + fall + near)


class Naive(MTO):
    """The same terms without any of the savings."""

    def forward(self, batch, hook=None):
        naive = NaiveHook(self.config)
        output = self.base(batch, naive)
        return replace(output, penalty=naive.penalty())


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors alive at once that were made inside the block, at their highest."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf.untyped_storage())
        return out

    def _watch(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key, size):
        self._alive.discard(key)
        self.now -= size


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SHARES = {"share 0.5": 0.5, "share 0.25": 0.25}
"""Masked tokens read visible ones only, and this share of them is carried and predicted."""

SETTINGS = {
    "closed": replace(MTOConfig.only(["recal"]), rows="all", keep_self=False, r_depth=1.0),
    **{n: replace(MTOConfig.only(["recal"]), predict_share=s) for n, s in SHARES.items()},
}
"""Variants that leave something out. ``closed``: no row of any layer reads a masked token, so none
of their keys and values is computed."""

SMALL_BARS = {"closed": 1.0, "share 0.5": 1.1, "share 0.25": 1.0}
"""At the sizes of digits, where choosing half of the patches costs what it saves."""

CLOSED_BARS = {"simmim": 0.88, "mae": 1.0, "data2vec": 1.0}


def arm(name, variant):
    if variant in SETTINGS:
        return initialised(with_mto(method_of(name, SHAPE), SETTINGS[variant]))
    if variant != "naive":
        return method_of(name + variant, SHAPE)
    method = method_of(f"{name}+mto:all", SHAPE)
    return Naive(method.method, method.config)


def initialised(method):
    method.reset_parameters(lambda parameter: STREAMS.generator("init", parameter))
    return method


def step_of(method, batch):
    """One step up to the gradients; the optimizer's own part is the same in every arm."""
    method.zero_grad(set_to_none=True)
    output = method(batch)
    loss = output.loss if output.penalty is None else output.loss + output.penalty
    loss.backward()


def timed(method, batch):
    start = time.process_time()
    step_of(method, batch)
    return time.process_time() - start


def peak_of(method, batch):
    method.zero_grad(set_to_none=True)
    gc.collect()
    with PeakMemory() as memory:
        step_of(method, batch)
    return memory.peak


def measured(benchmark, name, variant):
    """(step ratio, memory ratio) of the variant over the bare method."""
    bare, method = arm(name, ""), arm(name, variant)
    feed = [batch_of(bare, BATCH, step) for step in range(ROUNDS + 1)]
    memory = peak_of(method, feed[-1]) / peak_of(bare, feed[-1])
    rounds, bare_times, own_times = iter(feed), [], []

    def take_turns():
        batch = next(rounds)
        bare_times.append(timed(bare, batch))
        return (batch,), {}

    benchmark.pedantic(
        lambda batch: own_times.append(timed(method, batch)), setup=take_turns, rounds=ROUNDS
    )
    step = median(own / bare for own, bare in zip(own_times, bare_times, strict=True))
    benchmark.extra_info.update(step_ratio=step, memory_ratio=memory, rounds=ROUNDS)
    print(f"\n{name} {variant}: step x{step:.3f}, memory x{memory:.3f}", end=" ")
    print(f"({median(bare_times):.2f} s bare, {ROUNDS} rounds)")
    return step, memory


@pytest.mark.parametrize("variant", ["+mto", "+mto:all"])
@pytest.mark.parametrize("name", METHODS)
def test_mto_stays_below_the_bars(benchmark, name, variant):
    step, memory = measured(benchmark, name, variant)
    assert step <= STEP_BAR
    assert memory <= MEMORY_BAR


@pytest.mark.parametrize("name", METHODS)
def test_what_is_never_read_is_not_paid_for(benchmark, name):
    step, memory = measured(benchmark, name, "closed")
    assert step <= CLOSED_BARS[name]
    assert memory <= MEMORY_BAR


@pytest.mark.parametrize("variant", SHARES)
@pytest.mark.parametrize("name", METHODS)
def test_patches_that_are_left_out_are_not_paid_for(benchmark, name, variant):
    step, memory = measured(benchmark, name, variant)
    assert step < 1
    assert memory < 1


@pytest.mark.parametrize("variant", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_at_the_sizes_of_digits_leaving_out_stays_below_its_bar(benchmark, name, variant):
    assert small_ratio(benchmark, name, variant) <= SMALL_BARS[variant]


def small_ratio(benchmark, name, variant):
    """Sums of 20 steps of 64 images; baseline and variant take turns, and turns at being first."""
    plan = resolve.Resolver(layers.load_preset("digits")).resolve(typed.parse_arm(name), 4, 0)
    bare = build_method(plan)
    own = initialised(with_mto(build_method(plan), SETTINGS[variant]))
    arms = [bare, own]
    feed = [batch_of(bare, 64, step) for step in range(20)]
    for method in arms:
        step_of(method, feed[0])
    ratios = []

    def turn():
        order = arms if len(ratios) % 2 else arms[::-1]
        times = {id(method): sum(timed(method, batch) for batch in feed) for method in order}
        ratios.append(times[id(own)] / times[id(bare)])

    benchmark.pedantic(turn, rounds=5 * ROUNDS)
    benchmark.extra_info.update(step_ratio=median(ratios), rounds=len(ratios))
    print(f"\n{name} {variant} at digits' sizes: step x{median(ratios):.3f} ({len(ratios)} rounds)")
    return median(ratios)


@pytest.mark.parametrize("name", METHODS)
def test_the_naive_variant_is_there_for_comparison(benchmark, name):
    step, memory = measured(benchmark, name, "naive")
    assert step > 1
    assert memory > 1
