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
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return library() is not None


def suit_attention(qkv: Tensor, heads: int) -> bool:
    """Whether :func:`attend` may take a fused ``qkv`` [B, T, 3 D]."""
    width = qkv.shape[2] // (3 * heads)
    return qkv.shape[1] <= LONGEST and width <= WIDEST and width % LANES == 0 and suit(qkv)


def attend(qkv: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Attention of ``qkv`` [B, T, 3 D] with a bias that broadcasts to [B, H, T, T]; [B, T, D]."""
    out: Tensor = _Attention.apply(qkv, bias, heads)
    return out


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, within 1e-6; its slope is kept in place of ``x``."""
    y: Tensor = _Gelu.apply(x)
    return y


def _place(x: Tensor | None) -> ctypes.c_void_p:
    """Where a contiguous tensor's values begin; null for None."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x) if ctx.needs_input_grad[0] else None
        _library().gelu(ctypes.c_long(x.numel()), _place(x), _place(y), _place(slope))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return gradient * slope


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor | None, heads: int) -> Tensor:
        qkv, (b, t, width) = qkv.contiguous(), qkv.shape
        steps = None
        if bias is not None:
            full = bias.expand(b, heads, t, t)
            steps = (ctypes.c_long * 4)(*full.stride())
        weights = qkv.new_empty(b, heads, t, -(-t // LANES) * LANES)
        out = qkv.new_empty(b, t, width // 3)
        sizes = ctypes.c_long(b), t, heads, width // (3 * heads)
        places = _place(qkv), _place(bias), steps, _place(weights), _place(out)
        _library().attend_forward(*sizes, *places)
        ctx.save_for_backward(qkv, weights)
        ctx.sizes, ctx.bias = sizes, None if bias is None else bias.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        qkv, weights = ctx.saved_tensors
        by_qkv, gradient = torch.empty_like(qkv), gradient.contiguous()
        b, heads, t, _ = weights.shape
        by_logit = qkv.new_empty(b, heads, t, t) if ctx.needs_input_grad[1] else None
        places = _place(qkv), _place(weights), _place(gradient), _place(by_qkv), _place(by_logit)
        _library().attend_backward(*ctx.sizes, *places)
        return by_qkv, None if by_logit is None else by_logit.sum_to_size(ctx.bias), None


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found
