"""Linear layers whose fp32 products run in oneDNN where PyTorch's own choice is slow.

On a CPU PyTorch multiplies fp32 matrices by Intel's MKL, which keeps its kernels of full vector
width for Intel's processors; on AMD's with full-width AVX-512, from Zen 5 on, oneDNN, which comes
with PyTorch too, takes half the time (docs/performance.md). On Zen 4, which computes 512 bits in
two halves, it is the slower of the two on small layers. Everywhere else, and on a GPU, these are
PyTorch's own linear layers.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the processor."""

ZEN5_FAMILY = 26
"""Number of AMD's processor family (1Ah) that Zen 5 began; Zen 3 and 4 are 25."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply x by the transposed weight and add the bias; gradients of first order only.

    Shapes: x [..., K], weight [N, K], bias [N]; the product [..., N].
    """
    if _suits_onednn(x) and _suits_onednn(weight) and prefers_onednn():
        product: Tensor = _OneDnnLinear.apply(x, weight, bias)
        return product
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """``torch.nn.Linear`` by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., K] to [..., N]."""
        return linear(input, self.weight, self.bias)


@cache
def prefers_onednn() -> bool:
    """Whether this is a processor on which oneDNN is the faster of the two.

    A fixed property of the machine, never a timing: two processes must choose alike.
    """
    try:
        facts = CPUINFO.read_text()
    except OSError:
        return False
    has_both = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    family = re.search(r"^cpu family\s*:\s*(\d+)$", facts, re.MULTILINE)
    recent = family is not None and int(family[1]) >= ZEN5_FAMILY
    return has_both and recent and "AuthenticAMD" in facts and "avx512f" in facts


def _suits_onednn(x: Tensor) -> bool:
    """Whether a product with this operand is one of fp32 on a CPU, outside of tracing."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.numel():
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    """The layer and both its gradients as oneDNN products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, inputs = (t.reshape(-1, t.shape[-1]) for t in (gradient, x))
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.t()) if wants_x else None,
            _weight_gradient(rows, inputs) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _weight_gradient(rows: Tensor, inputs: Tensor) -> Tensor:
    """Gradient [N, K] from rows [R, N] and inputs [R, K].

    oneDNN copies the first factor to turn it, so that is the smaller one.
    """
    if rows.shape[1] > inputs.shape[1]:
        return _product(inputs.t(), rows.t()).t()
    return _product(rows.t(), inputs.t())


def _count_operations(x: Any, weight: Any, *rest: Any, **kwargs: Any) -> int:
    """Floating-point operations of one product, from its operands' shapes."""
    rows = 1
    for size in x[:-1]:
        rows *= size
    return int(2 * rows * x[-1] * weight[0])


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_count_operations)
