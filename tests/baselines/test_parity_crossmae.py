"""CrossMAE against an oracle in float64, token by token: loss, gradients; what is predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.crossmae.config import CrossMAEConfig
from baselines.crossmae.model import CrossMAE
from bench.api import Batch, VisionShape
from bench.errors import UsageError
from mto.config import MTOConfig
from mto.plugin import with_mto
from mto.probe import LayerProbe
from tests.baselines import oracle
from tests.baselines.parity import STREAMS, make_batch, scatter
from tests.baselines.trajectory import Walk

SHAPE = VisionShape(image_size=16, patch_size=4, width=16, depth=2, heads=2)
CONFIG = CrossMAEConfig(mask_ratio=0.6, decoder_width=8, decoder_depth=3, decoder_heads=2)
PATCHES = range(SHAPE.patches)


@pytest.fixture(autouse=True)
def _double_oracle() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(config: CrossMAEConfig = CONFIG) -> CrossMAE:
    method = CrossMAE(SHAPE, config)
    scatter(method)
    return method.float()


def batch_of(method: CrossMAE, noisy: bool = False) -> Batch:
    batch = make_batch(method)
    noise = STREAMS.samples("drop path", 0, torch.arange(3)) if noisy else None
    return replace(batch, images=batch.images.float(), noise=noise)


def asked(x: Tensor, read: Tensor, w: Mapping[str, Tensor], name: str) -> Tensor:
    """One token [E] asks what is read [T, D], head by head; [E]."""
    query = w[f"{name}.q.weight"] @ x + w[f"{name}.q.bias"]
    both = [w[f"{name}.kv.weight"] @ y + w[f"{name}.kv.bias"] for y in read]
    width, size = len(x), len(x) // CONFIG.decoder_heads
    mixed = []
    for start in range(0, width, size):
        part = slice(start, start + size)
        scores = [(query[part] * kv[:width][part]).sum() / math.sqrt(size) for kv in both]
        weights = torch.stack(scores).exp()
        values = torch.stack([kv[width:][part] for kv in both])
        mixed.append((weights[:, None] * values).sum(0) / weights.sum())
    return w[f"{name}.proj.weight"] @ torch.cat(mixed) + w[f"{name}.proj.bias"]


def read_by(image: Tensor, mask: Tensor, w: Mapping[str, Tensor]) -> list[Tensor]:
    """What each decoder block reads of an image, [T, D]: its own sum of the encoder's outputs."""
    table = torch.stack([oracle.sincos(SHAPE.width, i // 4, i % 4) for i in PATCHES])
    x = (oracle.embed(image, w, "vit.", SHAPE.patch_size) + table)[~mask]
    outputs = [torch.cat([w["vit.cls_token"][0], x])]
    for i in range(SHAPE.depth):
        outputs.append(oracle.block(outputs[-1], w, f"vit.blocks.{i}.", SHAPE.heads, None))
    found = []
    for k in range(CONFIG.decoder_depth):
        total = sum(w["mix"][k, j] * output for j, output in enumerate(outputs))
        assert isinstance(total, Tensor)
        norm = f"dec_norms.{k}"
        found.append(oracle.norm(total, w[f"{norm}.weight"], w[f"{norm}.bias"], 1e-6))
    return found


def picture(place: int, read: list[Tensor], w: Mapping[str, Tensor]) -> Tensor:
    """The predicted pixels of one patch, which knows of no other hidden patch."""

    def normed(x: Tensor, name: str) -> Tensor:
        return oracle.norm(x[None], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)[0]

    x = w["mask_token"][0, 0] + oracle.sincos(CONFIG.decoder_width, place // 4, place % 4)
    for k, seen in enumerate(read):
        block = f"decoder_blocks.{k}"
        x = x + asked(normed(x, f"{block}.norm1"), seen, w, f"{block}.cross_attn")
        y = normed(x, f"{block}.norm2")
        y = oracle.gelu(w[f"{block}.mlp.fc1.weight"] @ y + w[f"{block}.mlp.fc1.bias"])
        x = x + w[f"{block}.mlp.fc2.weight"] @ y + w[f"{block}.mlp.fc2.bias"]
    x = normed(x, "decoder_norm")
    return w["decoder_pred.weight"] @ x + w["decoder_pred.bias"]


def truth(batch: Batch, places: Tensor) -> Any:
    """The oracle's loss of weights: the mean over the places [B, K] of all images."""

    def loss(w: Mapping[str, Tensor]) -> Tensor:
        errors = []
        for image, mask, wanted in zip(batch.images.double(), batch.hidden, places, strict=True):
            read, pixels = read_by(image, mask, w), oracle.cut(image, SHAPE.patch_size, "hwc")
            for place in wanted.tolist():
                true = pixels[place]
                variance = ((true - true.mean()) ** 2).sum() / (len(true) - 1)
                true = (true - true.mean()) / (variance + 1e-6).sqrt()
                errors.append(((picture(place, read, w) - true) ** 2).mean())
        return torch.stack(errors).mean()

    return loss


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_loss_and_every_gradient(share: float) -> None:
    method = made(replace(CONFIG, predict_share=share))
    batch = batch_of(method, noisy=True)
    output = method(batch)
    output.loss.backward()
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    weights = {n: v.double() for n, v in method.state_dict().items()}
    loss = truth(batch, method.predicted(batch))
    expected, gradients = Walk(weights, trained, set()).gradients(loss)
    assert abs(output.loss.item() - expected) < 1e-6
    for name, parameter in method.named_parameters():
        if name not in trained:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        size = gradients[name].norm()
        assert size > 0, name
        assert (parameter.grad.double() - gradients[name]).norm() / size < 1e-5, name


def test_what_is_predicted_is_a_share_of_the_hidden_drawn_for_each_image() -> None:
    """At 196 patches the original's kept mask ratio of 0.25 is 49 of 147."""
    shape = VisionShape(image_size=56, patch_size=4, width=16, depth=1, heads=2)
    config = CrossMAEConfig(
        decoder_width=8, decoder_depth=1, decoder_heads=2, predict_share=0.25 / 0.75
    )
    method = CrossMAE(shape, config)
    batch = batch_of(method, noisy=True)
    places = method.predicted(batch)
    assert places.shape == (3, 49)
    assert batch.hidden.gather(1, places).all()
    assert all(len(set(row.tolist())) == 49 for row in places)
    assert not torch.equal(places[0], places[1])
    quiet = method.predicted(replace(batch, noise=None))
    assert quiet.shape == (3, 147), "all where nothing is to be random"


def test_other_hidden_patches_do_not_matter() -> None:
    """A patch is predicted alike whether two or all of the hidden ones are."""
    method = made().eval()
    batch = batch_of(method)
    with torch.no_grad():
        whole = method(batch).prediction
        places = method.predicted(batch)
        method.predicted = lambda batch: places[:, 2:4]  # type: ignore[method-assign]
        few = method(batch).prediction
    torch.testing.assert_close(few, whole[:, 2:4], atol=1e-6, rtol=1e-5)


def test_first_values_are_the_originals() -> None:
    """The weights of the mixtures too: its constructor's normal ones are drawn over by Xavier."""
    method = CrossMAE(SHAPE, replace(CONFIG, decoder_depth=40)).float()
    method.reset_parameters(lambda name: torch.Generator().manual_seed(0))
    edge = math.sqrt(6 / (40 + 3))
    assert 0.9 * edge < method.mix.abs().max() <= edge
    kv = method.decoder_blocks[0].cross_attn.kv.weight
    assert 0.9 * math.sqrt(6 / 32) < kv.abs().max() <= math.sqrt(6 / 32)
    assert method.vit.norm.weight.eq(1).all()
    assert not method.vit.norm.weight.requires_grad


def test_released_names_fill_the_method() -> None:
    """Of the original's own names; its encoder has no final norm."""
    method = made()
    state = {n: v.clone() for n, v in method.state_dict().items() if not n.startswith("vit.norm.")}
    state["wfm.linear.weight"] = state.pop("mix")
    official = {n.removeprefix("vit."): v for n, v in state.items()}
    found = method.import_official(official)
    assert set(found) == set(method.state_dict())
    assert torch.equal(found["mix"], method.mix)
    assert found["vit.norm.weight"].eq(1).all()
    assert found["vit.norm.bias"].eq(0).all()
    outside = ("mask_token", "decoder_", "dec_norms.", "wfm.")
    alone = {n: v for n, v in official.items() if not n.startswith(outside)}
    assert set(method.import_official(alone)) == {f"vit.{n}" for n in method.vit.state_dict()}
    del official["dec_norms.1.bias"]
    with pytest.raises(UsageError, match=r"missing dec_norms\.1\.bias"):
        method.import_official(official)


def test_mto_is_refused_but_for_first_values_and_a_probe_sees_no_layer() -> None:
    method, probe = made(), LayerProbe()
    with pytest.raises(UsageError, match=r"no token reads a mask token of CrossMAE.*recal"):
        with_mto(method, MTOConfig())
    assert with_mto(method, MTOConfig.only(["init"])).asks_only  # type: ignore[attr-defined]
    method(batch_of(method), probe)
    assert probe.summary()["heterogeneity"] == []
