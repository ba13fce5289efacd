"""The compiled kernels against double precision, and what takes their place without a compiler."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines import kernels
from baselines.attention import attend, attend_to, split_heads

compiled = pytest.mark.skipif(kernels.library() is None, reason="no C compiler is at hand")

BIASES = {"none": None, "shared": (1, 2, 1, 1), "image": (3, 1, 0, 0), "row": (3, 1, 1, 0)}
"""Sizes of a bias; 0 stands for the number of tokens."""


def randn(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def in_double(qkv: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    q, k, v = split_heads(qkv.double(), heads)
    mask = None if bias is None else bias.double()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


@pytest.fixture(params=["no compiler", "left out"])
def plain(monkeypatch, request):
    if request.param == "no compiler":
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CC", raising=False)
    else:
        monkeypatch.setenv("MTO_BENCH_KERNELS", "0")
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


@compiled
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize(("tokens", "width"), [(7, 16), (17, 16), (32, 48), (5, 64)])
def test_attention_and_its_gradients(tokens, width, bias):
    inputs = [randn(3, tokens, 6 * width).requires_grad_()]
    if bias is not None:
        inputs.append(randn(*(n or tokens for n in bias)).requires_grad_())
    given = (*inputs, None)[:2]
    assert kernels.suit_attention(given[0], given[0], width)
    ours, wanted = kernels.attend_within(given[0], 2, given[1]), in_double(given[0], 2, given[1])
    torch.testing.assert_close(ours, wanted.float(), rtol=1e-5, atol=2e-6)
    rows = randn(*ours.shape)
    found = torch.autograd.grad((ours * rows).sum(), inputs)
    expected = torch.autograd.grad((wanted * rows).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(7, 3), (17, 8), (4, 20)])
def test_attention_to_some_tokens_only(queries, keys, biased):
    inputs = [randn(3, queries, 32), randn(3, keys, 64)]
    inputs += [randn(3, 1, queries, keys)] if biased else []
    ours = [x.requires_grad_() for x in inputs]
    double = [x.detach().double().requires_grad_() for x in inputs]
    out, wanted = attend_to(*ours[:2], 2, *ours[2:]), attend_to(*double[:2], 2, *double[2:])
    torch.testing.assert_close(out, wanted.float(), rtol=1e-5, atol=2e-6)
    rows = randn(*out.shape)
    found = list(torch.autograd.grad((out * rows).sum(), ours))
    expected = torch.autograd.grad((wanted * rows).sum(), double)
    torch.testing.assert_close(found, [g.float() for g in expected], rtol=1e-4, atol=1e-5)


@compiled
def test_a_column_shut_out_gets_no_weight():
    qkv = randn(3, 5, 96).requires_grad_()
    bias = torch.zeros(3, 1, 5, 5).index_fill(3, torch.tensor([2]), -torch.inf)
    out = kernels.attend_within(qkv, 2, bias)
    torch.testing.assert_close(out, in_double(qkv, 2, bias).float(), rtol=1e-5, atol=2e-6)
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv)
    assert not gradient[:, 2, 32:].any()
    assert gradient[:, 2, :32].any()


@compiled
def test_what_is_no_number_stays_none():
    qkv = randn(1, 5, 96)
    qkv[0, 3] = torch.nan
    assert kernels.attend_within(qkv, 2, None).isnan().all()


@compiled
def test_other_precisions_are_pytorchs():
    x = randn(2, 4)
    assert kernels.suit(x)
    assert not kernels.suit(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not kernels.suit(x)


@compiled
def test_who_counts_operations_sees_them_all():
    qkv = randn(3, 5, 96)
    with FlopCounterMode(display=False) as counter:
        attend(qkv, 2)
    assert counter.get_total_flops() == 2 * 2 * 3 * 5 * 5 * 32


@pytest.mark.usefixtures("plain")
def test_without_the_kernels_pytorch_does_the_same():
    assert kernels.library() is None
    qkv = randn(3, 5, 96)
    assert not kernels.suit(qkv)
    torch.testing.assert_close(attend(qkv, 2), in_double(qkv, 2, None).float())
