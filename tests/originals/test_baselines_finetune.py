"""Fine-tuning and probing as the originals do, part by part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench.data.augment import augmented, centred
from bench.data.batch import Step
from bench.data.crops import crop_boxes
from bench.errors import NonFiniteLossError
from bench.evaluate.finetune import FinetuneConfig, FinetuneLoss
from bench.evaluate.probe import ProbeConfig, probe_head, probe_optimizer
from bench.plan.sections import AugmentConfig
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train import checkpoint, loop, optim
from bench.train.loop import Job, Session, fit
from bench.train.monitor import Monitor
from tests.data.test_feed import feed_config
from tests.originals.test_baselines_facts import resolved

CPU = torch.device("cpu")


def session(folder: Path, micro_batch: int = 0) -> Session:
    monitor = Monitor(RunFolder(folder), checkpoint_every_s=1e9)
    return Session(CPU, Streams(0, 0), monitor, micro_batch=micro_batch)


def test_the_last_mixed_image_of_an_odd_batch_stays_whole(tmp_path: Path) -> None:
    loss = FinetuneLoss(None, resolved("mae").task("finetune"), session(tmp_path), classes=4)
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 1])
    with Streams(0, 0).scoped("test", 0):
        mixed, soft = loss._mix(images, labels)
    assert mixed.shape == images.shape
    assert (mixed[:4] != images[:4]).flatten(1).any(1).all()
    assert torch.equal(mixed[4], images[4])
    assert soft.sum(1).tolist() == pytest.approx([1.0] * 5)
    assert soft[4].tolist() == pytest.approx([0.025, 0.925, 0.025, 0.025])
    with Streams(0, 0).scoped("test", 0):
        alone, target = loss._mix(images[:1], labels[:1])
    assert torch.equal(alone, images[:1])
    assert target.shape == (1, 4)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)

    def forward(self, images: torch.Tensor, noise: Any = None) -> torch.Tensor:
        return self.head(images.flatten(1))


def plain_recipe() -> FinetuneConfig:
    return FinetuneConfig(epochs=1, batch_size=7, blr=0.0, lr=0.1, precision="fp32")


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 7])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    micro_batch: int, tmp_path: Path
) -> None:
    """Seven images in micro-batches of three: the remainder of one counts too."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, 3, 2, 2, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    step = Step(torch.arange(7), images, labels, torch.zeros(7, 5), torch.arange(7), 7)
    gradients = []
    for size in (0, micro_batch):
        torch.manual_seed(0)
        model = Linear()
        where = session(tmp_path, size)
        for loss in FinetuneLoss(model, plain_recipe(), where, classes=4)(step, 0, 0):
            loss.backward()
        gradients.append(model.head.weight.grad)
    torch.manual_seed(0)
    model = Linear()
    nn.functional.cross_entropy(model(images, None), labels).backward()
    torch.testing.assert_close(gradients[0], model.head.weight.grad)
    torch.testing.assert_close(gradients[1], model.head.weight.grad)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_whole_gradient_is_clipped_once(parts: int, tmp_path: Path) -> None:
    """Whatever the micro-batches, one step of plain descent at rate 1 is as long as the limit."""
    torch.manual_seed(0)
    module = nn.Linear(6, 1, bias=False)
    images, before = torch.randn(4, 6), module.weight.detach().clone()
    (whole,) = torch.autograd.grad(10 * module(images).sum(), module.weight)
    assert whole.norm() > 1

    def losses(step: Step, number: int, epoch: int) -> Iterator[torch.Tensor]:
        yield from (10 * module(part).sum() for part in images.chunk(parts))

    feed: Any = SimpleNamespace(steps=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    job = Job("pretrain", module, optimizer, cast(Any, None), feed, 1, losses, clip_grad=0.5)
    step = Step(torch.arange(4), images, torch.zeros(4), torch.zeros(4, 5), torch.arange(4), 4)
    loop._optimise(job, session(tmp_path), torch.amp.GradScaler("cpu", enabled=False), step, 0)
    torch.testing.assert_close(before - module.weight.detach(), 0.5 * whole / whole.norm())


def maes_lars(
    weight: torch.Tensor, gradients: list[torch.Tensor], lr: float, decay: float
) -> torch.Tensor:
    """The rule of MAE's util/lars.py for one matrix, momentum 0.9, trust coefficient 1e-3."""
    momentum = torch.zeros_like(weight)
    for gradient in gradients:
        update = gradient + decay * weight
        ratio = 1e-3 * weight.norm() / update.norm()
        momentum = 0.9 * momentum + ratio * update
        weight = weight - lr * momentum
    return weight


def test_the_probes_optimizer_is_maes_lars() -> None:
    torch.manual_seed(0)
    model, recipe = nn.Linear(6, 3), ProbeConfig(batch_size=256, blr=0.5)
    optimizer = probe_optimizer(model, recipe)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    gradients = [torch.randn(3, 6) for _ in range(4)]
    slopes = [torch.randn(3) for _ in range(4)]
    for g, s in zip(gradients, slopes, strict=True):
        model.weight.grad, model.bias.grad = g.clone(), s.clone()
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), maes_lars(weight, gradients, 0.5, 0.0))
    momentum = torch.zeros(3)
    for s in slopes:
        momentum = 0.9 * momentum + s
        bias = bias - 0.5 * momentum
    torch.testing.assert_close(model.bias.detach(), bias)


def test_the_probes_head_has_a_batch_norm_without_parameters(tmp_path: Path) -> None:
    head = probe_head(16, 100, session(tmp_path))
    assert [n for n, _ in head.named_parameters()] == ["1.weight", "1.bias"]
    assert head[0].eps == 1e-6  # type: ignore[index]
    assert 0.008 < head[1].weight.std() < 0.012  # type: ignore[index]


def picture(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_probes_crop_is_cut_to_the_image_not_drawn_again() -> None:
    """With an area above that of the image a retry could never fit; a clamp takes it whole."""
    augment = AugmentConfig(crop_misfit="clamp")
    object.__setattr__(augment, "crop_scale", (4.0, 4.0))  # more than a recipe may ask for
    boxes = crop_boxes(Streams(0, 0).samples("crop", 0, torch.arange(20)), augment)
    assert torch.equal(boxes[:, :4], torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(20, 4))
    config = feed_config(resolved("mae").data, augment, size=16)
    with config.streams.scoped("test", 0):
        _, box = augmented(picture(), config)
    assert box.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_the_probes_crop_keeps_area_and_aspect_where_they_fit() -> None:
    augment = dataclasses.replace(resolved("mae").task("probe").augment, crop_scale=(0.3, 0.3))
    config = feed_config(resolved("mae").data, augment, size=16)
    for seed in range(20):
        with config.streams.scoped("test", seed):
            _, (top, left, high, wide, _) = augmented(picture(), config)
        assert 0 <= top <= 1 - high + 1e-6
        assert 0 <= left <= 1 - wide + 1e-6
        assert math.isclose(high * wide, 0.3, rel_tol=0.1)


@pytest.mark.parametrize(("size", "shorter"), [(224, 256), (96, 109), (384, 384), (32, 32)])
def test_centre_resizes_and_crops_as_mae_does(
    size: int, shorter: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.transforms import functional as tvf

    asked: list[tuple[int, Any]] = []
    resize = tvf.resize

    def spy(image: Any, to: int, mode: Any) -> Any:
        asked.append((to, mode))
        return resize(image, to, mode)

    monkeypatch.setattr(tvf, "resize", spy)
    config = feed_config(resolved("mae").data, AugmentConfig(), size=size)
    image, _ = centred(picture(500, 400), config)
    assert image.shape == (3, size, size)
    assert asked == [(shorter, tvf.InterpolationMode.BICUBIC)]


def test_randaugment_gets_timms_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.data.auto_augment as timms

    given: list[Any] = []
    original = timms.rand_augment_transform

    def spy(name: str, settings: dict[str, Any]) -> Any:
        given.append((name, settings))
        return original(name, settings)

    monkeypatch.setattr(timms, "rand_augment_transform", spy)
    config = feed_config(resolved("mae").data, resolved("mae").task("finetune").augment, size=224)
    with config.streams.scoped("test", 0):
        image, _ = augmented(picture(), config)
    assert image.shape == (3, 224, 224)
    name, settings = given[0]
    assert name == "rand-m9-mstd0.5-inc1"
    assert settings["translate_const"] == 100
    assert settings["img_mean"] == (124, 116, 104)
    assert settings["interpolation"] == Image.Resampling.BICUBIC


class Feed:
    steps = 6

    def epoch(self, epoch: int, first: int = 0) -> Any:
        for _ in range(first, self.steps):
            two = torch.arange(2)
            yield Step(two, torch.zeros(2), torch.zeros(2), torch.zeros(2, 5), two, 2)


def failing_job(model: nn.Module, losses: Any, precision: str = "fp32") -> Job:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = optim.cosine(optimizer, 6, 0)
    return Job("pretrain", model, optimizer, scheduler, Feed(), 1, losses, precision=precision)


def kept_state(job: Job, folder: Path, message: str) -> dict[str, Any]:
    """Runs a job that must fail, and returns the newest state it left."""
    where = Session(CPU, Streams(0, 0), Monitor(RunFolder(folder), checkpoint_every_s=0.0))
    with pytest.raises(NonFiniteLossError, match=message):
        fit(job, where)
    state = checkpoint.load_state(folder / "checkpoints" / "pretrain")
    assert state is not None
    assert all(v.isfinite().all() for v in state["module"].values())
    return state


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    precision: str, tmp_path: Path
) -> None:
    model = nn.Linear(1, 1)

    def losses(step: Step, number: int, epoch: int) -> Any:
        bad = float("nan") if number == 4 else 1.0
        yield model(torch.ones(1, 1)).square().mean() * bad

    job = failing_job(model, losses, precision)
    state = kept_state(job, tmp_path, "loss is not finite at step 5 of 6; the last good")
    assert state["meter"]["step"] == 4


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    """A finite loss whose gradient is infinite: the step before it is what is kept."""
    model = nn.Linear(1, 1)

    def losses(step: Step, number: int, epoch: int) -> Any:
        x = model(torch.ones(1, 1)).square().mean()
        yield (x * 0).sqrt() if number == 3 else x

    state = kept_state(failing_job(model, losses), tmp_path, "weights are not finite at step 4")
    assert state["meter"]["step"] == 3
