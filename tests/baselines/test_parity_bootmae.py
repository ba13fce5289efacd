"""BootMAE against its oracle: losses, every gradient, six steps with the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.bootmae.config import BootMAEConfig
from baselines.bootmae.model import BootMAE
from bench.api import Batch, VisionShape
from bench.plan.sections import PretrainConfig
from bench.train.optim import pretrain_optimizer
from tests.baselines import oracle_bootmae as oracle
from tests.baselines.parity import STREAMS, scatter
from tests.baselines.trajectory import Walk

SHAPE = VisionShape(image_size=16, patch_size=4, width=24, depth=3, heads=3)
SIZES = (SHAPE.patch_size, SHAPE.heads, SHAPE.grid)
CONFIG = BootMAEConfig(
    decoder_width=16,  # three heads of floor(16 / 3) = 5
    block_ratio=9 / 16,
    min_block=2,
    max_block=5,
    ema_decay_start=0.7,
    ema_decay=0.8,
    ema_decay_end=0.9,
    ema_share=0.25,
    ema_end_share=0.75,
)
TOTAL = 6


@pytest.fixture(autouse=True)
def _double_oracle() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(config: BootMAEConfig = CONFIG) -> BootMAE:
    method = BootMAE(SHAPE, config)
    scatter(method)
    generator = torch.Generator().manual_seed(8)
    for name, parameter in method.teacher.named_parameters():
        if name != "pos_embed":
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return method.float()


def batch_of(method: BootMAE, progress: float, size: int = 3, epoch: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(11 + epoch)
    images = torch.randn(size, 3, 16, 16, generator=generator).float()
    hidden = method.draw_hidden(STREAMS.samples("mask", epoch, torch.arange(size)))
    return Batch(images, hidden, progress=progress)


def double(method: BootMAE) -> dict[str, Tensor]:
    return {n: v.double() for n, v in method.state_dict().items()}


def truth(batch: Batch, raw: bool = False) -> Any:
    """The oracle's loss of weights, at this batch's place in the run."""
    images = batch.images.double()

    def loss(w: Mapping[str, Tensor]) -> Tensor:
        target = images if raw else None
        pixel, feature = oracle.bootmae_losses(w, images, batch.hidden, SIZES, target)
        return pixel + min(1.0, 4 * batch.progress) * feature

    return loss


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.9])
def test_loss_and_every_gradient(progress: float, norm_pix_loss: bool) -> None:
    method = made(replace(CONFIG, norm_pix_loss=norm_pix_loss))
    batch = batch_of(method, progress)
    output = method(batch)
    output.loss.backward()
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    walk = Walk(double(method), trained, set())
    expected, gradients = walk.gradients(truth(batch, raw=not norm_pix_loss))
    assert abs(output.loss.item() - expected) < 1e-6
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        size = gradients[name].norm()
        if "feature" in name and progress == 0:
            assert size == 0, name
            assert parameter.grad.norm() == 0, name
            continue
        assert size > 0, name
        error = (parameter.grad.double() - gradients[name]).norm() / size
        assert error < 1e-5, f"{name}: {error:.2e}"


def test_the_prediction_is_the_picture_at_the_hidden_places() -> None:
    method = made()
    batch = batch_of(method, 0.5)
    w, image, mask = double(method), batch.images[1].double(), batch.hidden[1]
    with torch.no_grad():
        found = method(batch).prediction[1].double()
        outputs = oracle.encode(image, w, "vit.", SIZES, ~mask)
        latent = oracle.norm(outputs[-1], w["vit.norm.weight"], w["vit.norm.bias"], 1e-6)
        tokens = oracle.decode(latent, outputs[0], mask, w, "pixel_decoder", SIZES)
        picture = oracle.pixels(tokens, w, SHAPE.grid)
    expected = torch.stack(
        [
            picture[:, 4 * (i // 4) : 4 * (i // 4) + 4, 4 * (i % 4) : 4 * (i % 4) + 4].flatten()
            for i in mask.nonzero()[:, 0].tolist()
        ]
    )
    assert (found - expected).abs().max() < 1e-5


def test_a_reconstruction_scales_each_channel_of_a_patch_back() -> None:
    method = made()
    batch = batch_of(method, 0.5)
    cells = batch.hidden.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = batch.images
    perfect = torch.stack([oracle.normalised(i.double(), 4) for i in images])
    patches = perfect.unflatten(3, (4, 4)).unflatten(2, (4, 4)).permute(0, 2, 4, 1, 3, 5)
    prediction = patches.reshape(3, 16, 48)[batch.hidden].view(3, -1, 48).float()
    drawn = method.reconstruct(batch, prediction)
    assert torch.equal(drawn[~cells.expand_as(drawn)], images[~cells.expand_as(images)])
    assert (drawn - images).abs().max() < 1e-5


def oracle_decay(share: float) -> float:
    """Straight lines between the three decays, at a quarter and at three quarters of the run."""
    if share < 0.25:
        return 0.7 + (0.8 - 0.7) * share / 0.25
    if share < 0.75:
        return 0.8 + (0.9 - 0.8) * (share - 0.25) / 0.5
    return 0.9


def test_six_steps_of_student_and_teacher() -> None:
    """Rates, decay and both networks' weights as AdamW's and the average's equations have them."""
    method = made()
    recipe = PretrainConfig(epochs=1, batch_size=256, blr=1e-3, betas=(0.9, 0.95))
    optimizer = pretrain_optimizer(method, recipe, method.no_weight_decay())
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    decayed = {n for n, p in trained.items() if p.ndim > 1 and n != "vit.cls_token"}
    walk = Walk(double(method), set(trained), decayed)
    pairs = {n: n.replace("teacher.", "vit.", 1) for n in walk.weights if n.startswith("teacher.")}
    for step in range(TOTAL):
        batch = batch_of(method, step / TOTAL, epoch=step)
        loss = method(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step, TOTAL)
        expected, gradients = walk.gradients(truth(batch))
        walk.step(gradients, step + 1, lr=1e-3, decay=0.05)
        walk.follow(pairs, oracle_decay(step / TOTAL))
        assert loss.item() == pytest.approx(expected, abs=1e-5)
    for name, value in method.state_dict().items():
        assert walk.misses(name, value) < 1e-5, name
    moved = method.teacher.blocks[0].mlp.fc1.weight - method.vit.blocks[0].mlp.fc1.weight
    assert moved.abs().max() > 1e-3
