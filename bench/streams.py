"""Named, counter-based random streams: every draw is a pure function of where it is used.

A draw depends on (suite seed, run seed, purpose, epoch, sample or step, counter) and on nothing
else: not on what was drawn before, nor on device, worker count or world size. The generator is
SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) evaluated at a counter, in wrapping 64-bit integers,
so that it vectorises the same on any device. B samples, K draws.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import operator
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX2 = 0x94D049BB133111EB - (1 << 64)
"""SplitMix64's constants, their bits as signed integers."""


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (not sign-extending) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, any shape: flips each output bit with probability 1/2."""
    x = (x ^ _shift_right(x, 30)) * MIX1
    x = (x ^ _shift_right(x, 27)) * MIX2
    return x ^ _shift_right(x, 31)


def hash_key(*parts: int | str) -> int:
    """A signed 64-bit key of the parts, the same in every process and version."""
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


@dataclass(frozen=True)
class Samples:
    """One stream for each of B samples (a :class:`bench.api.SampleStream`); ``keys`` int64 [B]."""

    keys: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.keys)

    def bits(self, count: int, offset: int = 0) -> Tensor:
        """Random 64-bit integers [B, K]."""
        counter = torch.arange(offset + 1, offset + count + 1, device=self.keys.device)
        return mix(self.keys[:, None] + counter * GOLDEN)

    def uniform(self, count: int, offset: int = 0) -> Tensor:
        """Uniform float32 in [0, 1), 24 bits each, [B, K]."""
        return _shift_right(self.bits(count, offset), 40).float() * 2.0**-24

    def select(self, index: Tensor | slice) -> Samples:
        """The streams of some of the samples."""
        return Samples(self.keys[index])


def hide_from_compilers() -> None:
    """Call before ``torch.compile``: compilers fold 64-bit constants without wrapping.

    A decorator would do the same, and import the whole compiler into every process.
    """
    Samples.bits = torch.compiler.disable(Samples.bits)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Streams:
    """All random streams of one run."""

    suite_seed: int
    run_seed: int

    def key(self, purpose: str, *where: int | str) -> int:
        """64-bit key of a purpose at a place."""
        return hash_key(self.suite_seed, self.run_seed, purpose, *where)

    def samples(self, purpose: str, where: int, ids: Tensor) -> Samples:
        """Streams for sample numbers ``ids`` [B] at an epoch or step ``where``, on their device."""
        return Samples(mix(ids.long() * GOLDEN + self.key(purpose, where)))

    def order(self, epoch: int, count: int) -> Tensor:
        """A permutation of ``range(count)`` for this epoch, int64 [count]."""
        keys = self.samples("order", epoch, torch.arange(count)).bits(1)[:, 0]
        return keys.argsort(stable=True)

    def generator(self, purpose: str, name: str) -> torch.Generator:
        """A CPU generator for one named thing, such as a parameter's initial values."""
        generator = torch.Generator()
        generator.manual_seed(self.key(purpose, name))
        return generator

    def seed(self, purpose: str, *where: int | str) -> None:
        """Seeds the global generators for library code that knows no other.

        Until the next seed, draws of ``random``, numpy and torch depend only on this run, purpose
        and place. Use within :func:`preserved`.
        """
        key = self.key(purpose, *where) & ((1 << 63) - 1)
        random.seed(key)
        np.random.seed(key % (1 << 32))
        for generator in _generators():
            generator.manual_seed(key)

    @contextlib.contextmanager
    def scoped(self, purpose: str, *where: int | str) -> Iterator[None]:
        """Seeds the global generators for a block of code and then restores them."""
        with preserved():
            self.seed(purpose, *where)
            yield


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Puts the global generators back as they were, whatever draws or seeds in between."""
    python, numpy, generators = random.getstate(), np.random.get_state(), _generators()
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators() -> list[torch.Generator]:
    """PyTorch's global generators, of the CPU and of the GPU in use.

    Taken directly: ``torch.manual_seed`` formats a traceback for a GPU that is not in use yet,
    which costs more than all the rest.
    """
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    return [torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)]


@lru_cache(maxsize=16)
def _place_weights(count: int, device: torch.device) -> Tensor:
    """What a digest weighs each place of a payload with, int64 [count]."""
    return mix(torch.arange(1, count + 1, device=device) * GOLDEN)


DIGEST_KIND = "b"
"""Names how digests are made; those of another kind, as in older records, compare with nothing."""


WAITING = 32
"""Payloads that a digest lets come together before it adds them."""


class Digest:
    """An order-independent sum of hashes: equal if and only if the same things were seen.

    Each sample adds one 64-bit hash, so that ranks can be added up and the sum kept on a device.
    """

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self._waiting: list[tuple[int, Tensor, Tensor]] = []

    @classmethod
    def zero(cls, device: torch.device) -> Digest:
        """The empty digest."""
        return cls(torch.zeros((), dtype=torch.int64, device=device))

    @property
    def total(self) -> Tensor:
        """The sum of all that was added, int64 []; may be changed in place."""
        for where, entries in itertools.groupby(self._waiting, operator.itemgetter(0)):
            _, ids, payloads = zip(*entries, strict=True)
            self._total += _hashes(where, torch.cat(ids), torch.cat(payloads)).sum()
        self._waiting.clear()
        return self._total

    def add(self, where: int, ids: Tensor, payload: Tensor) -> None:
        """Adds what samples ``ids`` int64 [B] were given at epoch ``where``.

        ``payload`` is int64, bool or float [B, K], floats to 2^-21. Epoch, sample and place within
        the payload are each mixed in, so that no exchange between two of a kind leaves the sum.
        """
        self._waiting.append((where, ids, payload))
        if len(self._waiting) >= WAITING:
            _ = self.total

    def text(self) -> str:
        """The kind and 16 hexadecimal digits."""
        return f"{DIGEST_KIND}:{int(self.total) & ((1 << 64) - 1):016x}"


def _hashes(where: int, ids: Tensor, payload: Tensor) -> Tensor:
    """What samples [B] add to a digest, int64 [B]."""
    if payload.is_floating_point():
        payload = (payload.double() * 2**20).round().long()
    weights = _place_weights(payload.shape[1], payload.device)
    keys = mix(ids * GOLDEN + hash_key("digest", where))
    return mix(keys + (payload.long() * weights).sum(1))
