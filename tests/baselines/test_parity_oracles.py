"""Each method's loss against a slow oracle written from its equations, and the teacher's steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.model import Data2Vec
from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.model import SimMIM
from bench.api import VisionShape
from tests.baselines import oracle
from tests.baselines.parity import make_batch, scatter

SHAPE = VisionShape(image_size=12, patch_size=4, width=16, depth=2, heads=2)
SIZES = (SHAPE.patch_size, SHAPE.heads, SHAPE.grid)


@pytest.fixture(autouse=True)
def _double_oracle() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def single(method: Any) -> Any:
    """The method in float32 with scattered weights."""
    scatter(method)
    return method.float()


def both(method: Any) -> tuple[float, Any, Any]:
    batch = make_batch(method, 2)
    batch = type(batch)(batch.images.float(), batch.hidden)
    weights = {n: v.double() for n, v in method.state_dict().items()}
    return method(batch).loss.item(), weights, batch


def test_mae() -> None:
    config = MAEConfig(mask_ratio=0.6, decoder_width=8, decoder_depth=2, decoder_heads=2)
    loss, weights, batch = both(single(MAE(SHAPE, config)))
    sizes = (SHAPE.patch_size, SHAPE.heads, 2, SHAPE.grid)
    with torch.no_grad():
        expected = oracle.mae_loss(weights, batch.images.double(), batch.hidden, sizes)
    assert abs(loss - expected) < 1e-6


def test_simmim() -> None:
    config = SimMIMConfig(mask_patch_size=4, drop_path=0.0)
    loss, weights, batch = both(single(SimMIM(SHAPE, config)))
    with torch.no_grad():
        expected = oracle.simmim_loss(weights, batch.images.double(), batch.hidden, SIZES)
    assert abs(loss - expected) < 1e-6


@pytest.mark.parametrize("beta", [2.0, 0.3])
def test_data2vec(beta: float) -> None:
    config = Data2VecConfig(
        min_block=2, drop_path=0.0, attn_drop=0.0, target_layers=2, layer_scale=0.1, beta=beta
    )
    method = single(Data2Vec(SHAPE, config))
    generator = torch.Generator().manual_seed(4)
    for parameter in method.teacher.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator).float()
    loss, weights, batch = both(method)
    with torch.no_grad():
        images = batch.images.double()
        expected = oracle.data2vec_loss(weights, images, batch.hidden, SIZES, 2, beta)
    assert abs(loss - expected) < 1e-6


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_teacher_is_the_moving_average_of_the_student(share: float) -> None:
    rates = {"ema_decay": 0.9, "ema_decay_start": 0.5, "ema_anneal_share": share}
    config = Data2VecConfig(target_layers=1, **rates)
    method = single(Data2Vec(SHAPE, config))
    name, total = "blocks.1.mlp.fc1.weight", 8
    slow = method.teacher.get_parameter(name).clone()
    for step in range(total):
        fast = method.vit.get_parameter(name)
        fast.data += step + 1
        rising = 0.5 + 0.4 * step / (share * total) if step < share * total else 0.9
        slow = rising * slow + (1 - rising) * fast.detach()
        method.after_step(step, total)
    assert (method.teacher.get_parameter(name) - slow).abs().max() < 1e-5


@pytest.mark.parametrize("total", [100, 400])
def test_the_teachers_time_constant_can_be_a_share_of_the_run(total: int) -> None:
    """From 2 % to 8 % of any run over its first half: 4 % after a quarter of it."""
    rising = {"ema_span": 0.08, "ema_span_start": 0.02, "ema_anneal_share": 0.5}
    config = Data2VecConfig(target_layers=1, **rising)
    method = single(Data2Vec(SHAPE, config))
    for step, share in ((0, 0.02), (total // 4, 0.04), (total // 2, 0.08), (total - 1, 0.08)):
        assert method.decay(step, total) == pytest.approx(1 - 1 / (share * total))
    constant = single(Data2Vec(SHAPE, Data2VecConfig(target_layers=1, ema_span=0.05)))
    assert constant.decay(0, total) == pytest.approx(1 - 1 / (0.05 * total))
    assert constant.decay(0, 10) == 0  # a time constant below one step: the teacher is the student


def test_the_teacher_stays_in_evaluation_mode_and_sees_the_whole_image() -> None:
    dropping = {"drop_path": 0.5, "attn_drop": 0.5}
    method = single(Data2Vec(SHAPE, Data2VecConfig(target_layers=1, min_block=2, **dropping)))
    batch = both(method)[2]
    method.train()
    assert not method.teacher.training
    first = method.target(batch.images)
    assert torch.equal(first, method.target(batch.images))
    assert not first.requires_grad
