"""data2vec's encoder against Hugging Face's ``Data2VecVisionModel``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.model import Data2Vec
from tests.baselines.parity import (
    SHAPE,
    THEIR_SIZES,
    Get,
    assert_same_gradients,
    block_names,
    gradients_of,
    make_batch,
    scatter,
    values_of,
)

transformers = pytest.importorskip("transformers")

NAMES = {
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "o": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def their_model() -> Any:
    config = transformers.Data2VecVisionConfig(
        **THEIR_SIZES,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
        use_mean_pooling=False,
        layer_scale_init_value=0.1,
        drop_path_rate=0.0,
    )
    return transformers.Data2VecVisionModel(config)


def in_our_names(get: Get) -> dict[str, Tensor]:
    table = "relative_position_bias_table"
    found = {
        "vit.cls_token": get("embeddings.cls_token"),
        "mask_token": get("embeddings.mask_token"),
        f"vit.rel_pos_bias.{table}": get(f"encoder.relative_position_bias.{table}"),
    }
    pairs = {
        "vit.patch_embed.proj": "embeddings.patch_embeddings.projection",
        "vit.norm": "layernorm",
    }
    for ours, theirs in pairs.items():
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = get(f"{theirs}.{part}")
    for i in range(SHAPE.depth):
        theirs = f"encoder.layer.{i}"
        block = block_names(get, theirs, NAMES)
        block["attn.q_bias"] = get(f"{theirs}.{NAMES['q']}.bias")
        block["attn.v_bias"] = get(f"{theirs}.{NAMES['v']}.bias")
        block["gamma_1"], block["gamma_2"] = get(f"{theirs}.lambda_1"), get(f"{theirs}.lambda_2")
        found |= {f"vit.blocks.{i}.{n}": v for n, v in block.items()}
    return found


def test_encoder_equals_hugging_face() -> None:
    """Every block's output, the final norm, and the gradients of data2vec's own loss."""
    theirs = their_model().train()
    scatter(theirs)
    config = Data2VecConfig(
        min_block=2, drop_path=0.0, attn_drop=0.0, target_layers=2, layer_scale=0.1
    )
    ours = Data2Vec(SHAPE, config)
    scatter(ours, seed=5)
    ours.load_state_dict(in_our_names(values_of(theirs)), strict=False)
    scatter_teacher(ours)
    batch = make_batch(ours)

    output = ours(batch)
    output.loss.backward()
    seen = theirs(batch.images, bool_masked_pos=batch.hidden, output_hidden_states=True)
    head = torch.nn.Linear(SHAPE.width, SHAPE.width)
    head.load_state_dict(ours.lm_head.state_dict())
    prediction = head(seen.last_hidden_state[:, 1:])[batch.hidden]
    target = ours.target(batch.images)[batch.hidden]
    loss = F.smooth_l1_loss(prediction, target, beta=config.beta)
    loss.backward()

    assert abs(output.loss.item() - loss.item()) < 1e-6
    assert (output.prediction - prediction).abs().max() < 1e-5
    gradients = in_our_names(gradients_of(theirs))
    gradients |= {f"lm_head.{n}": p.grad for n, p in head.named_parameters()}
    assert_same_gradients(ours, gradients)


def scatter_teacher(ours: Data2Vec) -> None:
    generator = torch.Generator().manual_seed(8)
    for parameter in ours.teacher.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def test_targets_equal_those_made_of_hugging_faces_blocks() -> None:
    theirs = their_model().eval()
    scatter(theirs)
    ours = Data2Vec(SHAPE, Data2VecConfig(target_layers=2, layer_scale=0.1))
    teacher = {
        n.removeprefix("vit."): v
        for n, v in in_our_names(values_of(theirs)).items()
        if n.startswith("vit.") and not n.startswith("vit.norm")
    }
    ours.teacher.load_state_dict(teacher)
    images = make_batch(ours).images
    with torch.no_grad():
        states = theirs(images, output_hidden_states=True).hidden_states[-2:]
    normed = [F.layer_norm(s[:, 1:], (SHAPE.width,)) for s in states]
    expected = F.layer_norm((normed[0] + normed[1]) / 2, (SHAPE.width,))
    assert (ours.train().target(images) - expected).abs().max() < 1e-5


def test_the_teacher_computes_in_full_precision_where_the_student_does_not() -> None:
    ours = Data2Vec(SHAPE, Data2VecConfig(target_layers=2)).train()
    images = make_batch(ours).images
    expected = ours.target(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.target(images), expected)
