"""Checks and times the methods on a GPU, and prints a short table; under ten minutes.

    python -m tests.benchmarks.gpu                  # on a machine with a GPU
    python -m tests.benchmarks.gpu --dry-run        # the same on the CPU, tiny, times of no meaning

Steps are forward, backward and fused AdamW in bf16 autocast with fused attention, eager and
compiled. MFU is the share of this GPU's own bf16 matrix rate, measured first, that the counted
operations reach. Bars: MAE at ViT-L at 50 % of that rate or more, twice Hugging Face's eager step
in the same run, and MTO's step at most 1.05 times its baseline's.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from bench.api import VisionShape
from bench.machine import provenance
from bench.plan.sections import PretrainConfig
from bench.store.files import write_bytes
from bench.streams import hide_from_compilers
from bench.train.loop import autocast
from bench.train.optim import pretrain_optimizer
from bench.train.pretrain import peak_memory_mib
from tests.benchmarks import peers
from tests.benchmarks.arms import batch_of, method_of

MODELS = {
    "ViT-B/16": VisionShape(
        image_size=224, patch_size=16, channels=3, width=768, depth=12, heads=12
    ),
    "ViT-L/16": VisionShape(
        image_size=224, patch_size=16, channels=3, width=1024, depth=24, heads=16
    ),
}
TINY = {
    "tiny": VisionShape(image_size=32, patch_size=8, channels=3, width=48, depth=2, heads=2),
}
BASELINES = ("mae", "simmim", "data2vec")
VARIANT = "+mto:all"
HUGGING_FACE = "Hugging Face MAE, eager"
MFU_BAR, PEER_BAR, MTO_BAR = 0.5, 2.0, 1.05


@dataclass
class Row:
    """One timed arm; ``mfu`` is a share of the measured bf16 matrix rate."""

    model: str
    arm: str
    mode: str
    images_per_s: float
    mfu: float
    memory_mib: float
    error: str = ""


@dataclass(frozen=True)
class Bench:
    """Where and how long to measure."""

    device: torch.device
    batch: int
    steps: int

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, step: Callable[[], Any], warm: int = 4) -> float:
        """Median seconds of a step, after ``warm`` untimed ones."""
        for _ in range(warm if self.device.type == "cuda" else 1):
            step()
        taken = []
        for _ in range(self.steps):
            self.wait()
            start = time.perf_counter()
            step()
            self.wait()
            taken.append(time.perf_counter() - start)
        return median(taken)


def matrix_rate(bench: Bench) -> float:
    """bf16 floating-point operations a second of a large square product."""
    side = 8192 if bench.device.type == "cuda" else 256
    a = torch.randn(side, side, device=bench.device, dtype=torch.bfloat16)
    return 2 * side**3 / bench.seconds(lambda: a @ a, warm=200)


def stepper(bench: Bench, module: Any, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """One step in bf16 with fused AdamW."""
    recipe = PretrainConfig(epochs=1, batch_size=bench.batch, lr=1e-4, blr=0)
    spared = module.no_weight_decay() if hasattr(module, "no_weight_decay") else set()
    optimizer = pretrain_optimizer(module, recipe, spared)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(bench.device, "bf16"):
            value = loss()
        value.backward()
        optimizer.step()

    return step


def our_row(bench: Bench, model: str, shape: VisionShape, name: str, mode: str) -> Row:
    """Times one of our arms, ``eager`` or ``compiled``."""
    module = method_of(name, shape).to(bench.device)
    batch = batch_of(module, bench.batch, device=bench.device)
    operations = _operations(bench, lambda: _loss(module(batch)))
    hide_from_compilers()
    backend = "inductor" if bench.device.type == "cuda" else "aot_eager"
    run = torch.compile(module, dynamic=False, backend=backend) if mode == "compiled" else module
    step = stepper(bench, module, lambda: _loss(run(batch)))

    def whole() -> None:
        step()
        module.after_step(0, 100)

    return _timed(bench, (model, name, mode), whole, operations)


def their_row(bench: Bench, model: str, shape: VisionShape) -> Row:
    """Times Hugging Face's MAE with its eager attention."""
    module = peers.HuggingFaceMAE(shape, attention="eager").to(bench.device)
    batch = batch_of(method_of("mae", shape), bench.batch, device=bench.device)

    def loss() -> torch.Tensor:
        found: torch.Tensor = module(batch.images, batch.hidden)
        return found

    operations = _operations(bench, loss)
    step = stepper(bench, module, loss)
    return _timed(bench, (model, HUGGING_FACE, "eager"), step, operations)


def _loss(output: Any) -> torch.Tensor:
    loss: torch.Tensor = output.loss
    return loss if output.penalty is None else loss + output.penalty


def _operations(bench: Bench, loss: Callable[[], torch.Tensor]) -> float:
    with FlopCounterMode(display=False) as counter, autocast(bench.device, "bf16"):
        loss().backward()
    return float(counter.get_total_flops())


def _timed(
    bench: Bench, names: tuple[str, str, str], step: Callable[[], None], operations: float
) -> Row:
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    taken = bench.seconds(step)
    return Row(*names, bench.batch / taken, operations / taken, peak_memory_mib(bench.device))


def rows_of(bench: Bench, models: dict[str, VisionShape]) -> Iterator[Row]:
    """All rows; an arm that fails says so and the others go on."""
    for model, shape in models.items():
        jobs: list[tuple[str, str, Callable[[], Row]]] = [
            (HUGGING_FACE, "eager", lambda m=model, s=shape: their_row(bench, m, s))  # type: ignore
        ]
        for name in (n + variant for n in BASELINES for variant in ("", VARIANT)):
            for mode in ("eager", "compiled"):
                arguments = (bench, model, shape, name, mode)
                jobs.append((name, mode, lambda a=arguments: our_row(*a)))  # type: ignore
        for name, mode, job in jobs:
            try:
                yield job()
            except (Exception, pytest.skip.Exception) as error:
                yield Row(model, name, mode, 0.0, 0.0, 0.0, f"{type(error).__name__}: {error}"[:90])
            torch.compiler.reset()
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()


def verdicts(rows: list[Row]) -> Iterator[str]:
    """The bars, each met, missed or not measured."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.model, row.arm)
        if row.images_per_s and row.images_per_s > getattr(best.get(key), "images_per_s", 0.0):
            best[key] = row
    for model in dict.fromkeys(row.model for row in rows):
        mae, peer = best.get((model, "mae")), best.get((model, HUGGING_FACE))
        if mae:
            yield _verdict(f"{model}: MAE's share of the matrix rate", mae.mfu, MFU_BAR)
        for row in rows:
            if peer and row.images_per_s and (row.model, row.arm) == (model, "mae"):
                ratio = row.images_per_s / peer.images_per_s
                what = f"{model}: MAE, {row.mode}, over Hugging Face's eager step"
                yield _verdict(what, ratio, PEER_BAR)
        for name in BASELINES:
            base, variant = best.get((model, name)), best.get((model, name + VARIANT))
            if base and variant:
                ratio = base.images_per_s / variant.images_per_s
                yield _verdict(
                    f"{model}: {name}{VARIANT}'s step over {name}'s", ratio, MTO_BAR, True
                )


def _verdict(what: str, value: float, bar: float, at_most: bool = False) -> str:
    met = value <= bar if at_most else value >= bar
    return f"{what}: {value:.2f} (bar {bar:g}, {'met' if met else 'missed'})"


def main() -> int:
    """Measures, prints the table, and keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--batch-size", type=int, default=0, help="images a step")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), metavar="DIR")
    args = parser.parse_args()
    if not args.dry_run and not torch.cuda.is_available():
        parser.error("no GPU here; --dry-run goes through the same steps on the CPU")
    device = torch.device("cpu" if args.dry_run else "cuda")
    if args.dry_run:
        torch.set_num_threads(1)
    bench = Bench(device, args.batch_size or (4 if args.dry_run else 128), 2 if args.dry_run else 8)
    torch.set_float32_matmul_precision("high")
    rate = matrix_rate(bench)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU, dry run'}, ", end="")
    print(f"bf16 products: {rate / 1e12:.3g} TFLOP/s, batch {bench.batch}")
    rows: list[Row] = []
    for row in rows_of(bench, TINY if args.dry_run else MODELS):
        row.mfu /= rate
        rows.append(row)
        print(".", end="", flush=True)
        if not args.dry_run:
            _keep(args.out, bench, rate, rows)
    print("\n" + tabulate([asdict(row) for row in rows], headers="keys", floatfmt=".3g"))
    if args.dry_run:
        print("dry run: no number above was measured on a GPU, and none is kept")
    else:
        print("\n".join(verdicts(rows)))
    return int(any(row.error for row in rows))


def _keep(folder: Path, bench: Bench, rate: float, rows: list[Row]) -> None:
    """Writes what has been measured so far, with date, device, versions and commit."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": provenance.hardware(bench.device, torch.get_num_threads()),
        "versions": provenance.versions(),
        "code": provenance.code(),
        "matrix_rate": rate,
        "batch": bench.batch,
        "rows": [asdict(row) for row in rows],
        "verdicts": list(verdicts(rows)),
    }
    write_bytes(folder / "gpu.json", (json.dumps(facts, indent=1) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(main())
