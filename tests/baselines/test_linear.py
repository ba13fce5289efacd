"""The linear layer by oneDNN against PyTorch's own, whatever this machine would choose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from baselines import linear as module
from baselines.linear import Linear, linear

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN"
)

chosen = module.prefers_onednn.__wrapped__

SHAPES = [((5, 7, 48), 144), ((3, 32), 8), ((6,), 4), ((2, 3, 4, 16), 16)]


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prefers_onednn", lambda: True)


def operands(shape: tuple[int, ...], outputs: int, bias: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, (outputs, shape[-1]), *([(outputs,)] if bias else [])]
    return [torch.randn(s, generator=generator, requires_grad=True) for s in sizes]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_values_and_gradients_are_pytorchs(
    shape: tuple[int, ...], outputs: int, bias: bool
) -> None:
    mine, given = operands(shape, outputs, bias), operands(shape, outputs, bias)
    ours, theirs = linear(*mine), F.linear(*given)
    assert "OneDnn" in type(ours.grad_fn).__name__
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for a, b in zip(mine, given, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)


def test_gradients_nobody_asked_for_are_not_computed() -> None:
    x, weight, bias = operands((4, 6), 3, True)
    x.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias).sum().backward()
    assert x.grad is None
    assert counter.get_total_flops() == 2 * (2 * 4 * 6 * 3)


def test_operations_are_counted_alike() -> None:
    counted = []
    for product in (linear, F.linear):
        with FlopCounterMode(display=False) as counter:
            product(*operands((5, 7, 48), 144, True)).sum().backward()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] == 3 * 2 * 35 * 48 * 144


def test_a_second_derivative_is_refused_not_wrong() -> None:
    x, weight, bias = operands((4, 6), 3, True)
    loss = linear(x, weight, bias).square().sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("case", ["empty", "double", "autocast"])
def test_whatever_does_not_suit_is_pytorchs_own(case: str) -> None:
    layer = Linear(6, 3)
    x = torch.randn(0 if case == "empty" else 2, 6)
    if case == "double":
        layer, x = layer.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        out = layer(x)
    assert "OneDnn" not in type(out.grad_fn).__name__
    assert out.dtype == {"double": torch.float64, "autocast": torch.bfloat16}.get(case, x.dtype)


@pytest.mark.parametrize(
    ("maker", "family", "flags", "wanted"),
    [
        ("AuthenticAMD", 26, "avx2 avx512f", True),
        ("AuthenticAMD", 25, "avx2 avx512f", False),
        ("AuthenticAMD", 23, "avx2", False),
        ("GenuineIntel", 6, "avx2 avx512f", False),
        ("GenuineIntel", 26, "avx2 avx512f", False),
    ],
)
def test_onednn_is_for_amd_processors_from_zen_5_on(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    maker: str,
    family: int,
    flags: str,
    wanted: bool,
) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"vendor_id\t: {maker}\ncpu family\t: {family}\nflags\t\t: {flags}\n")
    monkeypatch.setattr(module, "CPUINFO", told)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert chosen() is wanted


@pytest.mark.parametrize("kept", ["nothing", "no family"])
def test_a_machine_that_does_not_tell_its_processor_multiplies_as_pytorch_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: str
) -> None:
    told = tmp_path / "cpuinfo"
    if kept == "no family":
        told.write_text("vendor_id\t: AuthenticAMD\nflags\t\t: avx512f\n")
    monkeypatch.setattr(module, "CPUINFO", told)
    assert chosen() is False
