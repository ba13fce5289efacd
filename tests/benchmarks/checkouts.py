"""A step of pre-training on ``digits``: this checkout against another, in turns, on one core.

``python -m tests.benchmarks.checkouts OTHER`` (a ``git worktree`` of the commit to compare with).
Epochs of both take turns, so that a slow spell of the machine meets both; the ratio is the median
over the rounds. Also prints the share of the matrix rate a step reaches: its operations over what
the better of MKL and oneDNN does on the step's own products in the same run. On a processor with
AVX-512 all is done again without it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import provenance
from bench.plan.layers import load_preset
from bench.plan.resolve import Resolver
from bench.plan.typed import parse_arm
from bench.train.method import build_method
from tests.benchmarks.arms import batch_of

HERE = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("pretrain_epochs.py")
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Keeps PyTorch, oneDNN and MKL from AVX-512; read when a process loads them."""

Product = tuple[int, int, int]
"""Rows, inner length and columns."""


class Products(TorchDispatchMode):
    """Counts the matrix products that run inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            x, y = args[-2:]
            self.counts[x.shape[0], x.shape[1], y.shape[1]] += 1
        return func(*args, **(kwargs or {}))


def seconds(call: Any, times: int = 40) -> float:
    """The quarter of calls that is fastest, at its end, in processor time."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return sorted(taken)[times // 4]


def best_of_both(product: Product) -> float:
    """Seconds of one product by the faster of MKL and oneDNN."""
    rows, inner, columns = product
    x, y = torch.randn(rows, inner), torch.randn(inner, columns)
    turned = y.t().contiguous()
    onednn = torch.ops.mkldnn._linear_pointwise
    return min(
        seconds(lambda: torch.mm(x, y)),
        seconds(lambda: onednn(x, turned, None, "none", [], "")),
    )


def operations_and_rate(arm: str, batch_size: int) -> tuple[float, float]:
    """Operations of a step, and operations a second on its own matrix products."""
    method: Any = build_method(Resolver(load_preset("digits")).resolve(parse_arm(arm), 1, 0))
    batch = batch_of(method, batch_size)
    with Products() as products, FlopCounterMode(display=False) as counter:
        method(batch).loss.backward()
    work = sum(2 * a * b * c * n for (a, b, c), n in products.counts.items())
    taken = sum(best_of_both(product) * n for product, n in products.counts.items())
    return float(counter.get_total_flops()), work / taken


class Arm:
    """A checkout that pre-trains in a process of its own."""

    def __init__(self, checkout: Path, name: str, batch_size: int) -> None:
        command = [sys.executable, str(WORKER), str(checkout), name, str(batch_size)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=checkout)

    def epoch(self) -> tuple[float, float]:
        """Processor and wall seconds of a step of the next epoch."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        cpu, wall = self.process.stdout.readline().split()
        return float(cpu), float(wall)

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def race(other: Path, name: str, batch_size: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of a step here (processor time) and how many times faster, by processor and wall."""
    arms = [Arm(other, name, batch_size), Arm(HERE, name, batch_size)]
    try:
        for arm in arms:
            arm.epoch()
        turns = []
        for turn in range(rounds):
            order = arms if turn % 2 else arms[::-1]
            taken = {arm: arm.epoch() for arm in order}
            turns.append((taken[arms[0]], taken[arms[1]]))
    finally:
        for arm in arms:
            arm.end()
    gains = [median(old[i] / new[i] for old, new in turns) for i in (0, 1)]
    return median(new[0] for _, new in turns), gains[0], gains[1]


def main() -> None:
    """Prints one line an arm."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--arms", default="mae,simmim,data2vec")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    hardware = provenance.hardware(torch.device("cpu"), 1)
    instructions = torch.backends.cpu.get_cpu_capability()
    print(f"{provenance.hardware_label(hardware)}, {instructions}", flush=True)
    for name in args.arms.split(","):
        operations, rate = operations_and_rate(name, args.batch_size)
        step, cpu, wall = race(args.other.resolve(), name, args.batch_size, args.rounds)
        print(
            f"{name:12} {step * 1e3:6.2f} ms a step, {args.batch_size / step:7,.0f} images/s, "
            f"x{cpu:.2f} by processor time, x{wall:.2f} by the clock; products at "
            f"{rate / 1e9:.0f} GFLOP/s, of which a step reaches {operations / step / rate:.0%}",
            flush=True,
        )
    if instructions.startswith("AVX512"):
        command = [sys.executable, "-m", "tests.benchmarks.checkouts", *sys.argv[1:]]
        subprocess.run(command, env=os.environ | AVX2, check=True)


if __name__ == "__main__":
    main()
