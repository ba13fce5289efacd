"""Written-out attention against PyTorch's, values and gradients, in double and single precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.attention import SHORT, attend, split_heads

SHAPES = {"none": None, "shared": (1, 2, 5, 5), "per image": (3, 1, 5, 5), "full": (3, 2, 5, 5)}


def plain(qkv: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    q, k, v = split_heads(qkv, heads)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.transpose(1, 2).flatten(2)


def operands(shape: tuple[int, ...] | None, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 5, 24)] + ([] if shape is None else [shape])
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in sizes]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_of_short_attention(shape):
    assert torch.autograd.gradcheck(
        lambda qkv, bias=None: attend(qkv, 2, bias), operands(shape, torch.float64)
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_short_attention_equals_the_fused_kernel(shape):
    qkv, *bias = operands(shape, torch.float32)
    ours, theirs = attend(qkv, 2, *bias), plain(qkv, 2, bias[0] if bias else None)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    wanted = torch.autograd.grad(theirs.square().sum(), [qkv, *bias])
    found = torch.autograd.grad(ours.square().sum(), [qkv, *bias])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_column_shut_out_gives_no_weight_and_no_gradient():
    (qkv,) = operands(None, torch.float32)
    bias = torch.zeros(3, 1, 5, 5).index_fill(3, torch.tensor([2]), -torch.inf)
    out = attend(qkv, 2, bias)
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv)
    assert gradient.isfinite().all()
    assert not gradient[:, 2, 8:].any()
    assert gradient[:, 2, :8].any()


@pytest.mark.parametrize(("tokens", "drop", "written"), [(5, 0.0, True), (SHORT + 1, 0.0, False)])
def test_only_short_sequences_are_written_out(tokens, drop, written):
    qkv = torch.randn(2, tokens, 24, requires_grad=True)
    name = attend(qkv, 2, None, drop).grad_fn.name()
    assert ("ShortAttention" in name) == written


def test_weights_are_dropped_in_training_alone_by_the_fused_kernel():
    qkv = torch.randn(2, 5, 24)
    assert not torch.equal(attend(qkv, 2, None, 0.5), attend(qkv, 2))
