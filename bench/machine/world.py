"""Several processes compute one run: who takes which images, and what they add up.

Every random draw belongs to an image or a step, never to a process, so all processes together
see the images, crops and masks that one process would. Gradients are summed once a step over
plain tensors rather than by DistributedDataParallel: the loss of a step is a sum over
micro-batches weighted by the hidden patches of the *whole* batch (a mean of means would be
another loss), methods may leave parameters unused, and a state then has the same names at every
world size. The result differs from one process's only in the order of summation, but for attention
dropout, which draws for a whole micro-batch at once: other draws of the same kind.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bench.errors import LostProcessError, UsageError

BUCKET = 1 << 25
"""Elements sent at once."""

FIRST_PORT, PORTS = 20000, 20000


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Tells a process that is gone from other trouble while all of them exchange something.

    Raises:
        LostProcessError: if one does not answer any more.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise LostProcessError(
            f"another process of this run died or cannot be reached ({line}); each has its own "
            "job log"
        ) from error


@dataclass(frozen=True)
class World:
    """The processes of one run; this is number ``rank`` of ``size``.

    What exchanges something raises LostProcessError if a process is gone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process alone writes the run's folder."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """The value of the leading process, on every process."""
        if self.size == 1:
            return value
        box = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def highest(self, value: int) -> int:
        """The largest value of all processes."""
        if self.size == 1:
            return value
        box = torch.tensor([value])
        self._reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.size > 1:
            self._reduce(value, dist.ReduceOp.SUM)
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """All processes' rows [n_r, ...], in the order of :meth:`span`."""
        if self.size == 1:
            return rows
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.size)]
        with _together():
            dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
            longest = max(int(c) for c in counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        with _together():
            dist.all_gather(parts, padded)
        return torch.cat([p[: int(c)] for p, c in zip(parts, counts, strict=True)])

    def span(self, count: int) -> slice:
        """This process's consecutive share of ``count`` things."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def places(self, count: int, together: int = 1) -> Tensor:
        """This process's places in a batch of ``count``, int64 [b].

        Place ``i`` and its mirror image ``count - 1 - i`` stay together, in that order, so that
        mixing a batch with itself reversed (timm's mixup) pairs the same images at any world size.
        Of an odd number the last image has no mirror image; the last process takes it, last.
        Unless ``together`` is 1: then groups of that many consecutive places are never parted
        instead, and 0 is one group of all.
        """
        if self.size == 1:
            return torch.arange(count)
        if together != 1:
            group = together or count
            own = self.span(-(-count // group))
            return torch.arange(own.start * group, min(own.stop * group, count))
        even = count // 2 * 2
        half = self.span(even // 2)
        front = torch.arange(half.start, half.stop)
        last = [even] if count % 2 and self.rank == self.size - 1 else []
        return torch.cat([front, even - 1 - front.flip(0), torch.tensor(last, dtype=torch.long)])

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter], count: int) -> None:
        """Sums the gradients of a batch of ``count`` images over processes.

        A parameter without a gradient anywhere stays without one, as with one process.
        """
        if self.size == 1:
            return
        wanted = [p for p in parameters if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in wanted], dtype=torch.int32)
        if count < 2 * self.size:  # a process may have had no image
            self._reduce(used, dist.ReduceOp.MAX)
        for p, flag in zip(wanted, used.tolist(), strict=True):
            if flag and p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in wanted if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            self._reduce(flat, dist.ReduceOp.SUM)
            parts = flat.split([g.numel() for g in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def _reduce(self, value: Tensor, how: Any) -> None:
        with _together():
            dist.all_reduce(value, op=how)

    def leave(self) -> None:
        """Ends the connection."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


SOLO = World()
"""One process alone."""


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a run find each other, read from the environment."""

    world: World
    address: str
    port: int


def meeting(environment: Mapping[str, str]) -> Meeting | None:
    """What torchrun or a SLURM job step says of this process's peers; None for one process.

    Raises:
        UsageError: if the environment contradicts itself.
    """
    if "TORCHELASTIC_RUN_ID" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        place = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "0")
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        nodes = environment.get("SLURM_STEP_NODELIST", "")
        port = FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS
        place = _first_host(nodes), environment.get("MTO_BENCH_PORT", str(port))
    else:
        return None
    try:
        rank, size, local = (int(environment[n]) for n in names)
    except (KeyError, ValueError) as error:
        raise UsageError(f"several processes, but {error} is not set as torchrun does.") from error
    return Meeting(World(rank, size, local), place[0], int(place[1])) if size > 1 else None


def _first_host(nodes: str) -> str:
    """The first name of a SLURM node list such as ``gpu[003-007,9],cpu1``."""
    head, bracket, tail = nodes.partition("[")
    if not bracket or "," in head:
        return nodes.partition(",")[0]
    first = tail.partition("]")[0].replace(",", "-").partition("-")[0]
    return head + first


def join(cuda: bool, timeout_s: float = 1800) -> World:
    """Meets the other processes of this run, if the environment names any."""
    found = meeting(os.environ)
    if found is None:
        return SOLO
    world = found.world
    if cuda:
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"tcp://{found.address}:{found.port}",
        rank=world.rank,
        world_size=world.size,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    return world
