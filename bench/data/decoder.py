"""Worker processes that decode pictures: started once, kept over the epochs of a feed.

They are forked, whatever the launcher: a worker that imported torch anew for each epoch cost ten
times the decoding itself, and inside the times that a run reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.data.batch import FeedConfig
from bench.errors import DataError, MachineError

Decoded = tuple[Tensor, Tensor, Tensor]
"""Images [B, C, S, S], boxes [B, 5], and which of the pictures could be read, bool [B]."""

Plan = Sequence[Sequence[Any]]
"""Items of each batch."""

SHARED_MEMORY = re.compile(r"shared memory|shm|bus error|no space left", re.IGNORECASE)


class _Order:
    """The batches of the epoch at hand, which the kept workers are given anew each time."""

    def __init__(self) -> None:
        self.plan: Plan = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


class Decoder:
    """Decodes what plans ask for, in their order; ``pictures[item]`` decodes one."""

    def __init__(self, pictures: Any, config: FeedConfig) -> None:
        self.config, self.order = config, _Order()
        self.loader: DataLoader[Any] = DataLoader(
            cast(Dataset[Any], pictures),
            batch_sampler=cast(Any, self.order),
            num_workers=config.workers,
            pin_memory=config.device.type == "cuda",
            persistent_workers=config.workers > 0,
            multiprocessing_context="fork" if config.workers else None,
        )

    def start(self, plan: Plan) -> Iterator[Decoded]:
        """The batches of a plan; the workers begin with this call."""
        self.order.plan = [items for items in plan if items]
        with _Causes():
            batches = iter(self.loader)
        return self._filled(plan, batches)

    def _filled(self, plan: Plan, batches: Iterator[Decoded]) -> Iterator[Decoded]:
        """All batches; a process may have no image of a small one."""
        size, channels = self.config.image_size, len(self.config.data.mean)
        for items in plan:
            if items:
                with _Causes():
                    batch = next(batches)
                yield batch
            else:
                none = torch.zeros(0, dtype=torch.bool)
                yield torch.zeros(0, channels, size, size), torch.zeros(0, 5), none


class _Causes:
    """Says in one sentence what ended a worker, in place of its cut traceback."""

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raises the cause.

        Raises:
            DataError: if a picture could not be read.
            MachineError: if a worker was killed, or its memory was full.
        """
        if isinstance(error, DataError):
            raise type(error)(_last_line(error)) from None
        if isinstance(error, RuntimeError | OSError):
            _blame_machine(error)


def _last_line(error: Exception) -> str:
    """What a worker's error says, without the traceback that comes with it."""
    name = f"{type(error).__name__}: "
    return str(error).rpartition(name)[2].strip()


def _blame_machine(error: Exception) -> None:
    text = str(error)
    if SHARED_MEMORY.search(text):
        raise MachineError(
            "the data workers' shared memory (/dev/shm) is full: fewer --workers, a smaller "
            "--batch-size, or more of it (docker --shm-size)"
        ) from error
    if "DataLoader worker" in text and ("exited" in text or "killed" in text):
        raise MachineError(
            "a data worker was killed, often for want of memory: fewer --workers, or more memory"
        ) from error
    return
