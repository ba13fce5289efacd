"""Checks and times the methods on a GPU, and prints a short table.

    python -m tests.benchmarks.gpu                  # on a machine with a GPU
    python -m tests.benchmarks.gpu --dry-run        # the same on the CPU, tiny, times of no meaning

First every arm's loss and gradients in fp32 are compared with the CPU's. Steps are forward,
backward and fused AdamW in bf16 autocast with fused attention, eager and compiled. MFU is the share
of this GPU's own bf16 matrix rate, measured first, that the counted operations reach. Bars: MAE at
ViT-L at 50 % of that rate or more; twice Hugging Face's eager step in the same run; where masked
tokens are read by nobody, ``simmim+mto`` at most 0.88 times its baseline's step, and beside it the
same reading as a bias of the attention. After ``--minutes`` no arm is begun, and the rest is named.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

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
from mto import plugin
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
    "tiny": VisionShape(image_size=64, patch_size=8, channels=3, width=48, depth=6, heads=2),
}
BASELINES = ("mae", "simmim", "data2vec")
VARIANT = "+mto(recal,rows=all,keep_self=false,r_depth=1)"
"""No token reads a masked one: their keys and values are never computed."""

MASKED_ROWS = "+mto(recal,rows=masked,keep_self=false,r_depth=1)"
"""Visible tokens read all as ever, so that nothing can be left out."""

AS_BIAS = ", as a bias"
HUGGING_FACE = {kind: f"Hugging Face MAE, {kind} attention" for kind in ("eager", "sdpa")}
TIMM = "timm's blocks on MAE's tokens"
MFU_BAR, PEER_BAR, MTO_BAR = 0.5, 2.0, 0.88


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
    """Times one of our arms, ``eager`` or ``compiled``; ``as a bias`` with nothing left out."""
    if name.endswith(AS_BIAS):
        with patch.object(plugin._Pass, "plan", lambda *_, **__: None):
            row = our_row(bench, model, shape, name.removesuffix(AS_BIAS), mode)
        return replace(row, arm=name)
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


def their_row(bench: Bench, model: str, shape: VisionShape, name: str) -> Row:
    """Times Hugging Face's MAE, or timm's blocks."""
    kinds = {HUGGING_FACE[kind]: kind for kind in HUGGING_FACE}
    module: Any = peers.TimmBlocks(shape)
    if name in kinds:
        module = peers.HuggingFaceMAE(shape, attention=kinds[name])
    module = module.to(bench.device)
    batch = batch_of(method_of("mae", shape), bench.batch, device=bench.device)

    def loss() -> torch.Tensor:
        found: torch.Tensor = module(batch.images, batch.hidden)
        return found

    operations = _operations(bench, loss)
    step = stepper(bench, module, loss)
    return _timed(bench, (model, name, "eager"), step, operations)


def apart(bench: Bench, name: str) -> float:
    """Largest relative distance, loss and gradients, between this device and the CPU in fp32.

    Without dropout, whose draws are not the same on two devices.
    """
    shape = VisionShape(image_size=64, patch_size=8, channels=3, width=96, depth=6, heads=4)
    found = []
    for device in (torch.device("cpu"), bench.device):
        module = method_of(name, shape).to(device).eval()
        _loss(loss := module(batch_of(module, 8, device=device))).backward()
        grads = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        found.append([_loss(loss).detach().view(1).cpu(), torch.cat(grads).cpu()])
    return max(float((b - a).norm() / a.norm()) for a, b in zip(*found, strict=True))


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


def arms_of() -> Iterator[tuple[str, str]]:
    """(arm, mode), what is wanted most first."""
    yield "mae", "eager"
    yield HUGGING_FACE["eager"], "eager"
    yield HUGGING_FACE["sdpa"], "eager"
    yield TIMM, "eager"
    for name in (
        "simmim",
        f"simmim{VARIANT}",
        f"simmim{VARIANT}{AS_BIAS}",
        "data2vec",
        f"data2vec{VARIANT}",
    ):
        yield name, "eager"
    for name in (f"mae{VARIANT}", f"simmim{MASKED_ROWS}"):
        yield name, "eager"
    for name in ("mae", "simmim", f"simmim{VARIANT}", "data2vec"):
        yield name, "compiled"


def rows_of(bench: Bench, models: dict[str, VisionShape], minutes: float) -> Iterator[Row]:
    """All rows; an arm that fails, or whose turn comes too late, says so and the others go on."""
    end = time.monotonic() + 60 * minutes
    jobs = [(model, name, mode) for name, mode in arms_of() for model in models]
    for model, name, mode in jobs:
        try:
            if time.monotonic() > end:
                raise TimeoutError(f"{minutes:g} minutes were over")
            ours = name.startswith(BASELINES)
            timed = our_row(bench, model, models[model], name, mode) if ours else None
            yield timed or their_row(bench, model, models[model], name)
        except (Exception, pytest.skip.Exception) as error:
            yield Row(model, name, mode, 0.0, 0.0, 0.0, f"{type(error).__name__}: {error}"[:90])
        torch.compiler.reset()
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def verdicts(rows: list[Row]) -> Iterator[str]:
    """The bars, each met, missed or not measured."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.model, row.arm)
        if row.images_per_s and row.images_per_s > getattr(best.get(key), "images_per_s", 0.0):
            best[key] = row
    modes = {(row.model, row.arm, row.mode): row.images_per_s for row in rows if row.images_per_s}
    for model in dict.fromkeys(row.model for row in rows):
        peer = best.get((model, HUGGING_FACE["eager"]))
        if mae := best.get((model, "mae")):
            yield _verdict(f"{model}: MAE's share of the matrix rate", mae.mfu, MFU_BAR)
        for mode in ("eager", "compiled"):
            mine = modes.get((model, "mae", mode))
            if peer and mine:
                what = f"{model}: MAE, {mode}, over Hugging Face's with eager attention"
                yield _verdict(what, mine / peer.images_per_s, PEER_BAR)
            for name in BASELINES:
                base = modes.get((model, name, mode))
                variant = modes.get((model, name + VARIANT, mode))
                if base and variant:
                    bar = MTO_BAR if name == "simmim" else 1.0
                    what = f"{model}: {name}{VARIANT}'s step over {name}'s, {mode}"
                    yield _verdict(what, base / variant, bar, True)


def _verdict(what: str, value: float, bar: float, at_most: bool = False) -> str:
    met = value <= bar if at_most else value >= bar
    return f"{what}: {value:.2f} (bar {bar:g}, {'met' if met else 'missed'})"


def main() -> int:
    """Measures, prints the table, and keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--minutes", type=float, default=30, help="begin no arm after that")
    parser.add_argument("--batch-size", type=int, default=0, help="images a step")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), metavar="DIR")
    args = parser.parse_args()
    if not args.dry_run and not torch.cuda.is_available():
        parser.error("no GPU here; --dry-run goes through the same steps on the CPU")
    device = torch.device("cpu" if args.dry_run else "cuda")
    if args.dry_run:
        torch.set_num_threads(1)
    bench = Bench(device, args.batch_size or (4 if args.dry_run else 128), 2 if args.dry_run else 8)
    rate = matrix_rate(bench)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU, dry run'}, ", end="")
    print(f"bf16 products: {rate / 1e12:.3g} TFLOP/s, batch {bench.batch}")
    differences = {name: apart(bench, name) for name in (*BASELINES, f"simmim{VARIANT}")}
    print("against the CPU in fp32:", ", ".join(f"{n} {d:.1e}" for n, d in differences.items()))
    torch.set_float32_matmul_precision("high")
    rows: list[Row] = []
    for row in rows_of(bench, TINY if args.dry_run else MODELS, args.minutes):
        row.mfu /= rate
        rows.append(row)
        print(".", end="", flush=True)
        if not args.dry_run:
            _keep(args.out, bench, rate, rows, differences)
    print("\n" + tabulate([asdict(row) for row in rows], headers="keys", floatfmt=".3g"))
    if args.dry_run:
        print("dry run: no number above was measured on a GPU, and none is kept")
    else:
        print("\n".join(verdicts(rows)))
    return int(any(row.error for row in rows))


def _keep(
    folder: Path, bench: Bench, rate: float, rows: list[Row], differences: dict[str, float]
) -> None:
    """Writes what has been measured so far, with date, device, versions and commit."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": provenance.hardware(bench.device, torch.get_num_threads()),
        "versions": provenance.versions(),
        "code": provenance.code(),
        "matrix_rate": rate,
        "batch": bench.batch,
        "relative_difference_to_cpu_fp32": differences,
        "rows": [asdict(row) for row in rows],
        "verdicts": list(verdicts(rows)),
    }
    write_bytes(folder / "gpu.json", (json.dumps(facts, indent=1) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(main())
