"""ViT-B/16 at 224 px as the imagenet preset builds it: every arm takes a few steps on a CPU."""

from __future__ import annotations

import pytest
import torch

from bench.api import Batch
from bench.data.views import view_for
from bench.plan import resolve, typed
from bench.plan.config import RunConfig
from bench.plan.layers import load_preset
from bench.streams import Streams
from bench.train import optim
from bench.train.method import build_method

ARMS = [f"{m}{p}" for m in ("mae", "simmim", "data2vec", "bootmae", "conmim") for p in ("", "+mto")]


def config_of(arm: str) -> RunConfig:
    layers = (
        *load_preset("imagenet"),
        {"pretrain": {"blr": 0, "lr": 5e-4, "warmup_epochs": 0}},
    )
    return resolve.Resolver(layers).resolve(typed.parse_arm(arm), 800, 0)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_few_steps_at_paper_scale(arm: str) -> None:
    """Loss finite, and falling on a repeated batch; masks and hyper-parameters are the papers'."""
    config, streams = config_of(arm), Streams(0, 0)
    method = build_method(config)
    module: torch.nn.Module = method.train()  # type: ignore[attr-defined]
    recipe = config.pretrain
    optimizer = optim.pretrain_optimizer(module, recipe, method.no_weight_decay())
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(2, 3, 14, 14, generator=generator)
    images = torch.nn.functional.interpolate(rough, size=224, mode="bicubic")
    ids = torch.arange(2)
    hidden = method.draw_hidden(streams.samples("mask", 0, ids))
    losses = []
    for step in range(4):
        noise = streams.samples("drop path", step, ids)
        with streams.scoped("pretrain", step):
            view = view_for(config, images, streams.samples("view", 0, ids))
            output = method(Batch(images, hidden, noise, progress=0.5, view=view))
        total = output.loss if output.penalty is None else output.loss + output.penalty
        optimizer.zero_grad()
        total.backward()
        if recipe.clip_grad:
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_grad)
        optimizer.step()
        method.after_step(step, 4)
        assert total.isfinite()
        losses.append(output.loss.item())
    assert losses[-1] < losses[0], losses
