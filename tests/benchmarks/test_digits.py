"""The `digits` preset: images/s of one core, and what the harness adds around the bare steps."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from bench.api import Batch
from bench.data import load
from bench.data.batch import normalise
from bench.plan import layers, resolve, typed
from bench.plan.config import RunConfig
from bench.store.folder import RunFolder
from bench.streams import Digest, Streams
from bench.train import checkpoint, loop
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.optim import pretrain_optimizer, pretrain_scheduler
from bench.train.pretrain import Pretraining
from tests.benchmarks import peers
from tests.benchmarks.side_by_side import race

pytestmark = [pytest.mark.benchmark(group="digits"), pytest.mark.timeout(900)]

EPOCHS = int(os.environ.get("BENCH_EPOCHS", "100"))
"""Of a run whose overhead is measured: what is done once a run weighs more in a short one."""

RATE_EPOCHS = max(2, EPOCHS // 4)
"""Of a run whose rate is measured."""

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
METHODS = ("mae", "simmim", "data2vec")
OVERHEAD_BAR = 1.02

OWN_WORK: tuple[tuple[Any, str], ...] = (
    *((Pretraining, name) for name in ("measure_layers", "flops_per_image")),
    *((Monitor, name) for name in ("log", "beat", "urgency")),
    *((loop, name) for name in ("_state", "_collect", "_count_time")),
    (checkpoint, "save_state"),
    (Digest, "add"),
    (Streams, "seed"),
)
"""What a run does beside its steps."""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config_of(arm: str, epochs: int, *settings: str) -> RunConfig:
    resolver = resolve.Resolver((*layers.load_preset("digits"), typed.parse_overrides([*settings])))
    return resolver.resolve(typed.parse_arm(arm), epochs, 0)


def by_the_harness(config: RunConfig, folder: Path) -> Callable[[], None]:
    """A complete pre-training: streams, digests, heartbeats, log lines, a checkpoint a minute."""
    count = iter(range(10**6))

    def run() -> None:
        pretrain(config, Monitor(new_folder(folder / f"run-{next(count)}")))

    return run


def new_folder(path: Path) -> RunFolder:
    path.mkdir(parents=True)
    return RunFolder(path)


def pretrain(config: RunConfig, monitor: Monitor) -> None:
    images = load.load(config, "")
    session = Session(torch.device("cpu"), Streams(0, 0), monitor)
    method: Any = build_method(config)
    Pretraining(method.train(), images, config, session).run()


def bare_epochs(config: RunConfig) -> Iterator[None]:
    """The same steps and nothing else; stops after each epoch."""
    everything = load.load(config, "").train.images
    pixels = normalise(everything, config.data)  # type: ignore[union-attr]
    streams, recipe, size = Streams(0, 0), config.pretrain, config.pretrain.batch_size
    steps = len(pixels) // size
    method: Any = build_method(config)
    optimizer = pretrain_optimizer(method.train(), recipe, method.no_weight_decay())
    scheduler = pretrain_scheduler(optimizer, recipe, steps)
    for step in range(recipe.epochs * steps):
        epoch, place = divmod(step, steps)
        ids = streams.order(epoch, len(pixels))[place * size : (place + 1) * size]
        scheduler.step_update(step)
        hidden = method.draw_hidden(streams.samples("mask", epoch, ids))
        noise = streams.samples("drop path", step, ids)
        optimizer.zero_grad(set_to_none=True)
        output = method(Batch(pixels[ids], hidden, noise, step / (recipe.epochs * steps)))
        loss = output.loss if output.penalty is None else output.loss + output.penalty
        loss.backward()
        optimizer.step()
        method.after_step(step, recipe.epochs * steps)
        if place == steps - 1:
            yield


@dataclass
class Alternating(Monitor):
    """A run's monitor that runs an epoch of bare steps after each of the run's own."""

    bare: Iterator[None] = field(default_factory=lambda: iter(()))
    bare_s: float = 0.0

    def log(self, **values: Any) -> None:
        super().log(**values)
        if values["epoch"]:
            start = time.perf_counter()
            next(self.bare)
            self.bare_s += time.perf_counter() - start


def hugging_face() -> Callable[[], None]:
    """The steps of MAE by Hugging Face's model of the same sizes, masks included."""
    config = config_of("mae", RATE_EPOCHS)
    everything = load.load(config, "").train.images
    pixels = normalise(everything, config.data)  # type: ignore[union-attr]
    size, hyper = config.pretrain.batch_size, config.hyper
    decoder = (hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads)
    module = peers.HuggingFaceMAE(config.model, decoder=decoder, ratio=hyper.mask_ratio).model
    optimizer = pretrain_optimizer(module, config.pretrain, set())

    def run() -> None:
        for _ in range(RATE_EPOCHS):
            for ids in torch.randperm(len(pixels)).split(size)[: len(pixels) // size]:
                optimizer.zero_grad(set_to_none=True)
                module(pixels[ids]).loss.backward()
                optimizer.step()

    return run


@pytest.mark.parametrize("name", METHODS)
def test_the_harness_adds_little_to_the_bare_steps(
    benchmark: Any, name: str, tmp_path: Path
) -> None:
    """Bare epochs and a run's own take turns, so that both meet the same spells of the machine."""
    config, ratios = config_of(name, EPOCHS), []

    def one_round() -> None:
        folder = new_folder(tmp_path / str(len(ratios)))
        monitor = Alternating(folder, bare=bare_epochs(config))
        start = time.perf_counter()
        pretrain(config, monitor)
        assert next(monitor.bare, "over") == "over"
        ratios.append((time.perf_counter() - start - monitor.bare_s) / monitor.bare_s)

    benchmark.pedantic(one_round, rounds=ROUNDS, iterations=1)
    benchmark.extra_info.update(ratios=ratios, epochs=EPOCHS)
    print(f"\n  {name:32} x{median(ratios):.3f} of its bare steps", [round(r, 3) for r in ratios])
    assert median(ratios) <= OVERHEAD_BAR


def clocked(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - start)

    return call


@pytest.mark.parametrize("name", METHODS)
def test_logs_states_and_digests_take_little_of_a_run(
    benchmark: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness's own work by timers inside a run; none of the timed functions calls another."""
    pretrain(config_of(name, 2), Monitor(new_folder(tmp_path / "warm")))
    times: dict[str, list[float]] = {}
    for owner, function in OWN_WORK:
        spent = times.setdefault(function, [])
        monkeypatch.setattr(owner, function, clocked(getattr(owner, function), spent))
    config, monitor = config_of(name, EPOCHS), Monitor(new_folder(tmp_path / "run"))
    benchmark.pedantic(lambda: pretrain(config, monitor), rounds=1, iterations=1)
    shares = {what: sum(spent) / benchmark.stats["mean"] for what, spent in times.items()}
    assert all(shares.values())
    benchmark.extra_info.update(shares=shares, epochs=EPOCHS)
    print(f"\n  {name:32} {sum(shares.values()):.2%} of a run:", end=" ")
    print(", ".join(f"{what} {share:.2%}" for what, share in shares.items()))
    assert sum(shares.values()) <= OVERHEAD_BAR - 1


@pytest.mark.parametrize("name", METHODS)
def test_bf16_beside_fp32(benchmark: Any, name: str, tmp_path: Path) -> None:
    full = by_the_harness(config_of(name, RATE_EPOCHS), tmp_path / "fp32")
    config = config_of(name, RATE_EPOCHS, "pretrain.precision=bf16")
    half = by_the_harness(config, tmp_path / "bf16")
    race(benchmark, {name: full, f"{name}, bf16": half}, ROUNDS)


def test_images_a_second(benchmark: Any, tmp_path: Path) -> None:
    names = (*METHODS, "mae+mto")
    configs = {name: config_of(name, RATE_EPOCHS) for name in names}
    arms = {name: by_the_harness(config, tmp_path / name) for name, config in configs.items()}
    race(benchmark, {**arms, "mae, Hugging Face": hugging_face()}, ROUNDS)
    batch = configs["mae"].pretrain.batch_size
    images = len(load.load(configs["mae"], "").train) // batch * batch
    seconds = benchmark.extra_info["seconds"]
    rates = {name: RATE_EPOCHS * images / taken for name, taken in seconds.items()}
    benchmark.extra_info["images_per_s"] = rates
    for name, rate in rates.items():
        print(f"  {name:32} {rate:10,.0f} images/s on one core")
