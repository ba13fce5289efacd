"""What every method must do, bare and with every plug-in: the contract of bench.api.

Runs from an installed package too: ``pytest --pyargs bench.testing --arm yours``.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import registry
from bench.api import Batch, ClassifierOptions, MaskEmbedding, TokenLayer, asks_only, masks_at
from bench.errors import RunError, UsageError
from bench.evaluate.finetune import finetune_optimizer
from bench.plan import resolve, typed
from bench.plan.config import RunConfig
from bench.plan.keys import Layer
from bench.plan.layers import load_preset
from bench.streams import Streams
from bench.train.method import build_method

QUIET: Layer = {
    "model": {"image_size": 16, "patch_size": 4, "channels": 3, "width": 24, "depth": 3},
    "data": {"mean": [0.5] * 3, "std": [0.25] * 3},
}
"""A small model; what a method or plug-in needs beside it is its configuration's ``tiny()``."""


def arms_of(names: Sequence[str] = ()) -> list[str]:
    """The arms meant by names of arms, methods and plug-ins; all there are if none is given.

    A plug-in on a method whose mask tokens only ask is an arm where it does not refuse that.
    """
    methods, plugins = registry.METHODS.names(), registry.PLUGINS.names()
    found: list[str] = []
    for name in names or methods:
        if name in methods:
            found += [name, *(f"{name}+{plugin}" for plugin in plugins)]
        elif name in plugins:
            found += [f"{method}+{name}" for method in methods]
        else:
            typed.parse_arm(name)
            found.append(name)
    kept = (arm for arm in found if arm in names or not refused(arm))
    return list(dict.fromkeys(kept))


def refused(arm: str) -> bool:
    """Whether a plug-in refuses a method because no token reads its mask tokens."""
    base = arm.partition("+")[0]
    if arm == base or not asks_only(registry.METHODS.load(base)):
        return False
    try:
        make(arm)
    except UsageError:
        return True
    return False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test once for each arm that ``--arm`` names."""
    if "arm" in metafunc.fixturenames:
        metafunc.parametrize("arm", arms_of(metafunc.config.getoption("--arm", None) or ()))


def config_of(arm: str) -> RunConfig:
    """An arm at the sizes of :data:`QUIET` and of its parts' own ``tiny()``."""
    parsed = typed.parse_arm(arm)
    own = {parsed.method: registry.METHODS.config(parsed.method)}
    own |= {wrap.name: registry.PLUGINS.config(wrap.name) for wrap in parsed.plugins}
    tiny = {name: cls.tiny() for name, cls in own.items() if hasattr(cls, "tiny")}
    layers = (*load_preset("digits"), QUIET, {"model": {"heads": 2}}, tiny)
    return resolve.Resolver(layers).resolve(parsed, 4, 0)


def make(arm: str) -> Any:
    """The method with its plug-ins, initialised from seed 0."""
    return build_method(config_of(arm))


def masks(method: Any, size: int = 4, epoch: int = 0) -> Tensor:
    """Hidden patches [B, N] of the first ``size`` samples in an epoch."""
    return method.draw_hidden(Streams(0, 0).samples("mask", epoch, torch.arange(size)))


def make_batch(method: Any, size: int = 4, noisy: bool = False) -> Batch:
    """A batch from the middle of a run, with all that any method may ask for."""
    shape = method.shape
    generator = torch.Generator().manual_seed(1)
    side = shape.image_size
    images, view = torch.randn(2, size, shape.channels, side, side, generator=generator)
    noise = Streams(0, 0).samples("drop path", 0, torch.arange(size)) if noisy else None
    once = Streams(0, 0).samples("step", 0, torch.arange(1)) if noisy else None
    return Batch(images, masks(method, size), noise, progress=0.5, view=view, step=once)


def part_of(batch: Batch, part: slice) -> Batch:
    """Some samples, with all that belongs to them."""
    noise = None if batch.noise is None else batch.noise.select(part)  # type: ignore[attr-defined]
    view = None if batch.view is None else batch.view[part]
    return replace(
        batch, images=batch.images[part], hidden=batch.hidden[part], noise=noise, view=view
    )


def total(output: Any) -> Tensor:
    """What a step minimises: the loss, and a plug-in's penalty if there is one."""
    return output.loss if output.penalty is None else output.loss + output.penalty


@pytest.fixture
def method(arm: str) -> Any:
    """Each test's own copy, at its initial values."""
    return make(arm)


def test_forward_gives_a_finite_scalar_and_detached_terms(method: Any) -> None:
    """A positive loss and a prediction; what is only logged carries no gradient."""
    output = method(make_batch(method))
    assert output.loss.shape == ()
    assert output.loss.isfinite()
    assert output.loss > 0
    assert not any(t.requires_grad for t in output.terms.values())
    assert output.prediction is not None


def test_gradient_reaches_every_trainable_parameter(method: Any) -> None:
    """What is not trainable, as a teacher, gets none."""
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    total(method(make_batch(method))).backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_loss_falls_on_a_repeated_batch(method: Any) -> None:
    """A dozen steps of AdamW on one batch learn something."""
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 3e-3)
    batch, losses = make_batch(method), []
    for step in range(12):
        output = method(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step(step, 12)
        losses.append(output.loss.item())
    assert losses[-1] < losses[0]


def test_masks_are_a_function_of_sample_and_epoch_alone(method: Any) -> None:
    """Not of their neighbours in a batch, nor of what was drawn before."""
    first = masks(method, 8)
    assert first.dtype == torch.bool
    assert first.shape == (8, method.shape.patches)
    assert torch.equal(first, masks(method, 8))
    assert torch.equal(first[:3], masks(method, 3))
    assert not torch.equal(first, masks(method, 8, epoch=1))
    assert not torch.equal(first[0], first[1])


def test_masks_hide_some_patches_and_leave_some(method: Any) -> None:
    """In every image, so that there is something to predict and something to read."""
    counts = masks(method, 64).sum(1)
    assert counts.min() > 0
    assert counts.max() < method.shape.patches


def test_masks_are_the_base_methods_own(arm: str) -> None:
    """A plug-in hides the same patches, which is what makes two arms comparable."""
    assert torch.equal(masks(make(arm.partition("+")[0])), masks(make(arm)))


def test_masks_of_a_step_are_a_function_of_its_images_and_streams(method: Any) -> None:
    """Where a plug-in makes them: cut as a batch is, they stay what they are."""
    batch = make_batch(method, 6, noisy=True)
    part = part_of(batch, slice(2, 4))
    whole, alone = (masks_at(method, b.hidden, b.noise, b.step) for b in (batch, part))
    assert whole.dtype == torch.bool
    assert torch.equal(whole[2:4], alone)
    counts, own = whole.sum(1), batch.hidden.sum(1)
    assert counts.min() > 0
    assert counts.max() < method.shape.patches
    assert (own.min() < own.max()) or (counts.min() == counts.max())
    assert masks_at(method, batch.hidden, None, None) is batch.hidden, "nothing is to be random"


@pytest.mark.parametrize("more", [-1, 1])
def test_a_step_may_hide_another_number_of_patches(method: Any, more: int) -> None:
    """One fewer or one more in each image than the method's own masks hide."""
    method.eval()
    batch = make_batch(method)
    ranks = batch.hidden.logical_not().to(torch.uint8).argsort(dim=1, stable=True).argsort(1)
    hidden = ranks < batch.hidden.sum(1, keepdim=True) + more
    assert (hidden.sum(1) - batch.hidden.sum(1) == more).all()
    output = method(replace(batch, hidden=hidden, most=int(hidden.sum(1).max())))
    assert output.loss.isfinite()
    assert not torch.equal(output.prediction, method(batch).prediction)


def test_hidden_pixels_do_not_reach_the_prediction(method: Any) -> None:
    """Changing what is hidden changes no prediction: nothing leaks through the mask."""
    method.eval()
    batch = make_batch(method)
    patch, grid = method.shape.patch_size, method.shape.grid
    cells = batch.hidden.view(-1, 1, grid, grid)
    cells = cells.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    noise = torch.randn_like(batch.images)
    other = replace(batch, images=torch.where(cells, noise, batch.images))
    with torch.no_grad():
        first, second = method(batch).prediction, method(other).prediction
    assert torch.equal(first, second)


def test_initial_values_come_from_named_streams_alone(arm: str) -> None:
    """The global generator may stand anywhere."""
    torch.manual_seed(1)
    first = make(arm).state_dict()
    torch.manual_seed(2)
    second = make(arm).state_dict()
    assert all(torch.equal(v, second[n]) for n, v in first.items())


def test_no_global_generator_is_read_or_moved(method: Any) -> None:
    """But for fused attention dropout, which the loop seeds for each step."""
    method.eval()
    batch = make_batch(method, noisy=True)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = method(batch).loss
    torch.rand(3)
    middle = torch.get_rng_state()
    assert torch.equal(first, method(batch).loss)
    assert torch.equal(torch.get_rng_state(), middle)
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
    masks(method)
    assert torch.equal(torch.get_rng_state(), middle)


def test_drop_path_is_drawn_per_sample(method: Any) -> None:
    """The noise of one sample decides for that sample only, whatever else is in the batch."""
    method.eval()
    batch = make_batch(method, noisy=True)
    part = part_of(batch, slice(1, 3))
    with torch.no_grad():
        whole, alone = (method.encoder().tokens(b.images, b.noise) for b in (batch, part))
    torch.testing.assert_close(whole[1:3], alone, atol=1e-5, rtol=1e-4)


def test_micro_batches_weighted_by_hidden_patches_add_up_to_the_batch(method: Any) -> None:
    """They are cut where the method lets them: here all do between pairs of images."""
    method.eval()
    batch = make_batch(method, 6)
    parts = [part_of(batch, p) for p in (slice(0, 4), slice(4, 6))]
    with torch.no_grad():
        whole = method(batch).loss
        loss = sum(method(p).loss * p.hidden.sum() / batch.hidden.sum() for p in parts)
    torch.testing.assert_close(loss, whole, atol=1e-6, rtol=1e-5)


class Watch:
    """A hook that records what it is shown and answers with no bias."""

    def __init__(self) -> None:
        self.embeddings: list[MaskEmbedding] = []
        self.layers: list[TokenLayer] = []

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> None:
        """Leaves nothing out."""

    def embedding(self, embedding: MaskEmbedding) -> None:
        """Keeps it; replaces nothing."""
        self.embeddings.append(embedding)

    def attention(self, layer: TokenLayer) -> None:
        """Keeps it; adds nothing."""
        self.layers.append(layer)


def test_a_hook_sees_every_layer_with_mask_tokens_and_changes_nothing(method: Any) -> None:
    """Shapes as the contract has them, the same loss with it and without."""
    method.eval()
    batch, watch = make_batch(method), Watch()
    bare, seen = method(batch).loss, method(batch, watch).loss
    assert torch.equal(bare, seen)
    streams = list(dict.fromkeys(x.stream for x in watch.layers))
    alone = [x.tokens.shape[1] == 0 for x in watch.embeddings]
    assert asks_only(method) == (not streams) == all(alone)
    assert asks_only(method) or [x.stream for x in watch.embeddings] == streams
    assert len(watch.embeddings) == len(method.mask_tokens())
    for stream in streams:
        own = [x for x in watch.layers if x.stream == stream]
        assert [x.index for x in own] == list(range(own[0].count))
    for layer in watch.layers:
        b, h, t, d = layer.query.shape
        assert layer.key.shape == (b, h, t, d)
        assert layer.tokens.shape[:2] == (b, t)
        assert layer.hidden.shape == (b, t)
        assert not layer.hidden[:, : layer.prefix].any()
        assert torch.equal(layer.hidden[:, layer.prefix :], batch.hidden)
        assert layer.scale == pytest.approx(d**-0.5)
    tokens = [x.mask_token for x in watch.embeddings]
    assert all(x is y for x, y in zip(tokens, method.mask_tokens().values(), strict=True))


class Instead(Watch):
    """A hook that shifts mask tokens, each place by values of its own, or gives too few."""

    def __init__(self, shift: float, cut: int = 0) -> None:
        super().__init__()
        self.shift, self.cut = shift, cut

    def embedding(self, embedding: MaskEmbedding) -> Tensor:  # type: ignore[override]
        """A value [B, M, D] for each mask token, M the most that an image has."""
        most = int(embedding.hidden.sum(1).max()) - self.cut
        token = embedding.mask_token
        places = self.shift * torch.outer(torch.arange(most), torch.arange(token.shape[2])).sin()
        return (token + places).expand(len(embedding.hidden), most, token.shape[2])


def test_a_hook_may_replace_mask_tokens(method: Any) -> None:
    """Equal values change no prediction, others do, and a wrong shape is refused."""
    method.eval()
    batch = make_batch(method)
    with torch.no_grad():
        bare, same = method(batch).prediction, method(batch, Instead(0.0)).prediction
        other = method(batch, Instead(0.5)).prediction
        assert torch.equal(bare, same)
        assert not torch.allclose(bare, other, atol=1e-4)
        with pytest.raises(RunError, match="replaced mask tokens by values of shape"):
            method(batch, Instead(0.0, cut=1))


def test_mask_tokens_and_spared_names_are_parameters(method: Any) -> None:
    """By the names that ``named_parameters`` gives them."""
    parameters = dict(method.named_parameters())
    assert method.mask_tokens()
    for name, token in method.mask_tokens().items():
        assert parameters[name] is token
        assert token.shape[:2] == (1, 1)
    assert method.no_weight_decay() <= set(parameters)


def test_the_encoder_travels_to_a_classifier(arm: str, method: Any) -> None:
    """Which gives logits and features, and whose parameters fine-tuning trains, each once."""
    method.eval()
    model: Any = method.classifier(ClassifierOptions(classes=7, drop_path=0.1))
    weights = {n: torch.randn_like(v) for n, v in method.encoder().state_dict().items()}
    model.load_encoder(weights)
    images = make_batch(method).images
    assert model(images).shape == (4, 7)
    features = method.encoder().features(images, "mean")
    assert features.shape == (4, method.shape.width)
    recipe = config_of(arm).task("finetune")
    groups = finetune_optimizer(model, recipe).param_groups
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for g in groups for p in g["params"]) == trained


def test_state_continues_bit_for_bit(method: Any) -> None:
    """A copy restored from ``state_dict`` goes on exactly: teachers and all."""
    twin = copy.deepcopy(method)
    batch = make_batch(method)

    def step(model: Any, number: int) -> float:
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.01 * (number + 1))
        model.after_step(number, 4)
        loss: float = model.eval()(batch).loss.item()
        return loss

    step(method, 0)
    twin.load_state_dict(method.state_dict())
    assert step(method, 1) == step(twin, 1)
