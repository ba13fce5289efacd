"""ConMIM against its oracle: loss, every gradient, six steps with the teacher's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.conmim.config import ConMIMConfig
from baselines.conmim.model import ConMIM
from bench.api import Batch, VisionShape
from bench.errors import RunError
from bench.plan.sections import PretrainConfig
from bench.train.optim import pretrain_optimizer
from tests.baselines import oracle_conmim as oracle
from tests.baselines.parity import STREAMS, scatter
from tests.baselines.trajectory import Walk

SHAPE = VisionShape(image_size=16, patch_size=4, width=24, depth=2, heads=3)
SIZES = (SHAPE.patch_size, SHAPE.heads, SHAPE.grid)
CONFIG = ConMIMConfig(
    mask_patch_size=4,
    projector_width=20,
    projector_out=12,
    norm_images=3,
    momentum=0.8,
    temperature=0.5,
)
TOTAL = 6
WITHOUT_EFFECT = "student.vit.norm.bias"
"""A shift that the projector's first batch norm takes away: not trained here."""


@pytest.fixture(autouse=True)
def _double_oracle() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(config: ConMIMConfig = CONFIG) -> ConMIM:
    method = ConMIM(SHAPE, config)
    scatter(method)
    for layer in (1, 4):  # gains around 1: a unit that never crosses 0 has no gradient but noise
        method.student.projector[layer].weight.data += 1
    generator = torch.Generator().manual_seed(8)
    for slow, fast in zip(*method._pairs(), strict=True):
        slow.data = fast.detach() + 0.1 * torch.randn(slow.shape, generator=generator)
    return method.float()


def batch_of(method: ConMIM, size: int = 5, epoch: int = 0) -> Batch:
    """Two unlike views; five images are a group of three and one of two."""
    generator = torch.Generator().manual_seed(11 + epoch)
    images, view = torch.randn(2, size, 3, 16, 16, generator=generator).float()
    hidden = method.draw_hidden(STREAMS.samples("mask", epoch, torch.arange(size)))
    return Batch(images, hidden, view=view)


def double(method: ConMIM) -> dict[str, Tensor]:
    return {n: v.double() for n, v in method.state_dict().items()}


def truth(batch: Batch, config: ConMIMConfig = CONFIG) -> Any:
    assert batch.view is not None
    views = batch.images.double(), batch.view.double()
    settings = config.temperature, config.norm_images or len(batch.images)

    def loss(w: Mapping[str, Tensor]) -> Tensor:
        return oracle.conmim_loss(w, views, batch.hidden, SIZES, settings)

    return loss


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("group", [3, 0, 64])
def test_loss_and_every_gradient(group: int, training: bool) -> None:
    """The teacher's norms use the batch's statistics, in evaluation mode too."""
    config = replace(CONFIG, norm_images=group)
    method = made(config).train(training)
    batch = batch_of(method)
    output = method(batch)
    output.loss.backward()
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    walk = Walk(double(method), trained | {WITHOUT_EFFECT}, set())
    expected, gradients = walk.gradients(truth(batch, config))
    assert gradients[WITHOUT_EFFECT].norm() < 1e-12
    assert abs(output.loss.item() - expected) < 1e-6
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert gradients[name].norm() > 0, name
        error = (parameter.grad.double() - gradients[name]).norm() / gradients[name].norm()
        assert error < 1e-5, f"{name}: {error:.2e}"


def test_the_papers_temperature() -> None:
    """At 0.1 rounding counts tenfold, so the loss is held to its size."""
    config = replace(CONFIG, temperature=0.1)
    method = made(config)
    batch = batch_of(method)
    with torch.no_grad():
        expected = truth(batch, config)(double(method)).item()
        assert method(batch).loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_prediction_is_the_students_features_at_the_hidden_places() -> None:
    method = made()
    batch = batch_of(method, 2)
    with torch.no_grad():
        found = method(batch).prediction.double()
        expected = oracle.features(
            batch.images.double(), batch.hidden, double(method), "student.", SIZES
        )
    expected = expected[batch.hidden].view_as(found)
    assert (found - expected).abs().max() < 1e-5


def test_the_two_views_do_not_change_places() -> None:
    method = made()
    batch = batch_of(method)
    other = Batch(batch.view, batch.hidden, view=batch.images)
    with torch.no_grad():
        assert abs(method(batch).loss - method(other).loss) > 1e-3


def test_a_batch_without_a_second_view_is_refused() -> None:
    method = made()
    with pytest.raises(RunError, match="second view"):
        method(Batch(batch_of(method).images, batch_of(method).hidden))


def test_six_steps_of_student_and_teacher() -> None:
    """Momentum from 0.8 to 1 by a cosine of the step, AdamW's and the average's equations."""
    method = made()
    recipe = PretrainConfig(epochs=1, batch_size=256, blr=1e-3, betas=(0.9, 0.95))
    optimizer = pretrain_optimizer(method, recipe, method.no_weight_decay())
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    decayed = {n for n, p in trained.items() if p.ndim > 1 and n != "student.vit.cls_token"}
    walk = Walk(double(method), set(trained), decayed)
    pairs = {n: n.replace("teacher", "student") for n in walk.weights if n.startswith("teacher.")}
    for step in range(TOTAL):
        batch = batch_of(method, epoch=step)
        loss = method(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step, TOTAL)
        expected, gradients = walk.gradients(truth(batch))
        walk.step(gradients, step + 1, lr=1e-3, decay=0.05)
        walk.follow(pairs, 1 - 0.2 * (1 + math.cos(math.pi * step / TOTAL)) / 2)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
    for name, value in method.state_dict().items():
        assert walk.misses(name, value) < 1e-5, name
    moved = method.teacher.projector[0].weight - method.student.projector[0].weight
    assert moved.abs().max() > 1e-3
