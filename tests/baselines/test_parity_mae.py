"""MAE against Hugging Face's ``ViTMAEForPreTraining``, weights and position tables copied in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from baselines.positions import sincos_positions
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
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "o": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def their_model(norm_pix_loss: bool) -> Any:
    config = transformers.ViTMAEConfig(
        **THEIR_SIZES,
        decoder_num_attention_heads=4,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_intermediate_size=64,
        mask_ratio=0.75,
        norm_pix_loss=norm_pix_loss,
    )
    return transformers.ViTMAEForPreTraining(config)


def in_our_names(get: Get) -> dict[str, Tensor]:
    found = {
        "vit.cls_token": get("vit.embeddings.cls_token"),
        "mask_token": get("decoder.mask_token"),
    }
    pairs = {
        "vit.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "vit.norm": "vit.layernorm",
        **{n: f"decoder.{n}" for n in ("decoder_embed", "decoder_norm", "decoder_pred")},
    }
    for ours, theirs in pairs.items():
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = get(f"{theirs}.{part}")
    stacks = (
        (SHAPE.depth, "vit.blocks", "vit.layers"),
        (2, "decoder_blocks", "decoder.decoder_layers"),
    )
    for depth, ours, theirs in stacks:
        for i in range(depth):
            block = block_names(get, f"{theirs}.{i}", NAMES)
            biases = [get(f"{theirs}.{i}.{NAMES[n]}.bias") for n in "qkv"]
            block["attn.qkv.bias"] = torch.cat(biases)
            found |= {f"{ours}.{i}.{n}": v for n, v in block.items()}
    return found


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_mae_equals_hugging_face(norm_pix_loss: bool) -> None:
    theirs = their_model(norm_pix_loss).train()
    scatter(theirs)
    config = MAEConfig(
        norm_pix_loss=norm_pix_loss, decoder_width=16, decoder_depth=2, decoder_heads=4
    )
    ours = MAE(SHAPE, config)
    tables = {n: v for n, v in ours.state_dict().items() if n.endswith("pos_embed")}
    ours.load_state_dict({**in_our_names(values_of(theirs)), **tables})
    theirs.vit.embeddings.position_embeddings.data.copy_(tables["vit.pos_embed"])
    theirs.decoder.decoder_pos_embed.data.copy_(tables["decoder_pos_embed"])
    batch = make_batch(ours)

    output = ours(batch)
    output.loss.backward()
    expected = theirs(batch.images, noise=batch.hidden.float())
    expected.loss.backward()

    assert torch.equal(expected.mask.bool(), batch.hidden)
    assert abs(output.loss.item() - expected.loss.item()) < 1e-6
    logits = expected.logits[batch.hidden].view_as(output.prediction)
    assert (output.prediction - logits).abs().max() < 1e-5
    assert_same_gradients(ours, in_our_names(gradients_of(theirs)))


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_reconstruction_scales_predictions_back_by_the_true_patch(norm_pix_loss: bool) -> None:
    """Pixel by pixel in numpy: the mean and the unbiased variance of all values of a patch."""
    config = MAEConfig(norm_pix_loss=norm_pix_loss, decoder_width=16, decoder_heads=4)
    ours = MAE(SHAPE, config)
    batch = make_batch(ours)
    hidden = batch.hidden.sum(1)
    patch, side = SHAPE.patch_size, SHAPE.grid
    generator = torch.Generator().manual_seed(2)
    shape = (len(hidden), int(hidden[0]), patch * patch * SHAPE.channels)
    prediction = torch.randn(shape, generator=generator)
    expected = batch.images.double().numpy().copy()
    for image, (mask, rows) in enumerate(zip(batch.hidden, prediction.double(), strict=True)):
        for number, place in enumerate(mask.nonzero()[:, 0].tolist()):
            top, left = place // side * patch, place % side * patch
            box = np.s_[image, :, top : top + patch, left : left + patch]
            true = expected[box]
            values = rows[number].numpy().reshape(patch, patch, SHAPE.channels)
            if norm_pix_loss:
                values = values * np.sqrt(true.var(ddof=1) + 1e-6) + true.mean()
            expected[box] = values.transpose(2, 0, 1)
    found = ours.reconstruct(batch, prediction)
    assert np.abs(found.double().numpy() - expected).max() < 1e-5
    assert np.abs(expected - batch.images.double().numpy()).max() > 1


def test_position_table_equals_hugging_faces() -> None:
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    theirs = build_2d_sinusoidal_position_embedding(
        height=14, width=14, embed_dim=768, cls_token=True
    )
    swapped = torch.cat([theirs[:, 384:], theirs[:, :384]], dim=1)
    assert (sincos_positions(768, 14)[0] - swapped).abs().max() < 1e-6
