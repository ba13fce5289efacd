"""Builds and calls ``kernels.c``, where a C compiler is at hand; elsewhere PyTorch does the same.

What is built follows from the source, the compiler and the instruction set that PyTorch has chosen
for this processor, never from a timing. It is kept in the user's cache. ``MTO_BENCH_KERNELS=0``
leaves it out.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")

FLAGS = (
    *("-O3", "-shared", "-fPIC", "-std=c11", "-fno-math-errno", "-fno-trapping-math"),
    *("-fassociative-math", "-fno-signed-zeros"),
)
"""Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning."""

INSTRUCTIONS = {
    "AVX512": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ),
    "AVX2": ("-mavx2", "-mfma"),
}
"""Compiler flags by PyTorch's name of the instruction set (``ATEN_CPU_CAPABILITY`` narrows it)."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no compiler, or it was asked to stay away."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if os.environ.get("MTO_BENCH_KERNELS") == "0" or compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("kernels were not built, PyTorch's own operations are used: %s", error)
        return None


def _built(compiler: str) -> Path:
    """The library's file, compiled unless it is there."""
    flags = (*FLAGS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ()))
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    text = SOURCE.read_bytes() + version + " ".join(flags).encode()
    name = f"kernels-{hashlib.sha256(text).hexdigest()[:16]}.so"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = home / "mto-bench" / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / name
            command = [compiler, *flags, str(SOURCE), "-o", str(fresh), "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            fresh.replace(target)
    return target


LANES = 16
"""Widths of heads and padded lengths are multiples of it (kernels.c)."""

LONGEST, WIDEST, LARGEST = 32, 64, 1 << 22
"""Tokens, width of a head, and values up to which the serial kernels are taken."""


def suit(x: Tensor) -> bool:
    """Whether the kernels may take these values: few, fp32, on a CPU, and nobody looking on.

    Who counts operations or traces would not see them. A fixed property of the machine and the
    shape, never a timing: two processes must choose alike.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu" or not 0 < x.numel() <= LARGEST:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if torch._C._len_torch_dispatch_stack():
        return False
    return library() is not None


def suit_attention(query: Tensor, read: Tensor, width: int) -> bool:
    """Whether attention of these [B, T, ..] with heads of this width may be taken."""
    short = query.shape[1] <= LONGEST and read.shape[1] <= LONGEST
    return short and width <= WIDEST and width % LANES == 0 and suit(query) and suit(read)


def attend(query: Tensor, read: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Attention of queries [B, T, D] to keys and values side by side, ``read`` [B, K, 2 D].

    ``bias`` broadcasts to [B, H, T, K]; the result is [B, T, D].
    """
    out: Tensor = _Attention.apply(query, read, bias, heads)
    return out


def attend_within(qkv: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Attention of a fused ``qkv`` [B, T, 3 D] to itself, [B, T, D]."""
    out: Tensor = _Attention.apply(qkv, None, bias, heads)
    return out


def _place(x: Tensor | None) -> ctypes.c_void_p:
    """Where a contiguous tensor's values begin; null for None."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


class _Sides(ctypes.Structure):
    """``struct sides`` of kernels.c."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in (
            *("images", "queries", "keys", "heads", "width"),
            *("query_image", "query_row", "key_image", "key_row"),
        )
    )


def _sides(first: Tensor, rest: Tensor | None, heads: int) -> tuple[_Sides, int]:
    """Sizes and strides of both sides, and the channels D."""
    b, t, row = first.shape
    other = first if rest is None else rest
    channels = row // 3 if rest is None else row
    keys, key_row = other.shape[1:]
    strides = t * row, row, keys * key_row, key_row
    return _Sides(b, t, keys, heads, channels // heads, *strides), channels


def _parts(first: Tensor, rest: Tensor | None, channels: int) -> list[ctypes.c_void_p]:
    """Where queries, keys and values begin: in one tensor, or the last two in another."""
    other, skip = (first, channels) if rest is None else (rest, 0)
    begin = other.data_ptr() + 4 * skip
    return [_place(first), ctypes.c_void_p(begin), ctypes.c_void_p(begin + 4 * channels)]


class _Attention(torch.autograd.Function):
    """Of a fused qkv, or of queries and, apart, keys with values."""

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, rest: Tensor | None, bias: Tensor | None, heads: int
    ) -> Tensor:
        first, rest = first.contiguous(), None if rest is None else rest.contiguous()
        sides, channels = _sides(first, rest, heads)
        shape = sides.images, heads, sides.queries, sides.keys
        steps = None if bias is None else (ctypes.c_long * 4)(*bias.expand(shape).stride())
        padded = -(-sides.queries // LANES) * LANES
        weights = first.new_empty(sides.images, heads, sides.keys, padded)
        out = first.new_empty(sides.images, sides.queries, channels)
        places = _place(bias), steps, _place(weights), _place(out)
        _library().attend_forward(ctypes.byref(sides), *_parts(first, rest, channels), *places)
        ctx.save_for_backward(first, rest, weights)
        ctx.sides, ctx.bias_shape = sides, None if bias is None else bias.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, rest, weights = ctx.saved_tensors
        sides, gradient = ctx.sides, gradient.contiguous()
        channels = gradient.shape[2]
        by_first, by_rest = (
            torch.empty_like(first),
            None if rest is None else torch.empty_like(rest),
        )
        shape, by_logit = (sides.images, sides.heads, sides.queries, sides.keys), None
        if ctx.needs_input_grad[2]:
            by_logit = first.new_empty(shape)
        values = *_parts(first, rest, channels), _place(weights), _place(gradient)
        gradients = *_parts(by_first, by_rest, channels), _place(by_logit)
        _library().attend_backward(ctypes.byref(sides), *values, *gradients)
        by_bias = None if by_logit is None else by_logit.sum_to_size(ctx.bias_shape)
        return by_first, by_rest, by_bias, None


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found
