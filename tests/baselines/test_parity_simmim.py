"""SimMIM's head and loss against Hugging Face's ``ViTForMaskedImageModeling``.

That class is SimMIM on a plain ViT, so the two coincide with absolute positions (our fixed table
copied into its learned one), no layer scale, no drop path, and a key bias of zero.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.patches import patchify
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.model import SimMIM
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
from tests.baselines.test_parity_mae import NAMES

transformers = pytest.importorskip("transformers")


def their_model() -> Any:
    config = transformers.ViTConfig(
        **THEIR_SIZES,
        encoder_stride=SHAPE.patch_size,
    )
    return transformers.ViTForMaskedImageModeling(config)


def in_our_names(get: Get) -> dict[str, Tensor]:
    found = {
        "vit.cls_token": get("vit.embeddings.cls_token"),
        "mask_token": get("vit.embeddings.mask_token"),
    }
    pairs = {
        "vit.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "vit.norm": "vit.layernorm",
        "decoder.0": "decoder.0",
    }
    for ours, theirs in pairs.items():
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = get(f"{theirs}.{part}")
    for i in range(SHAPE.depth):
        theirs = f"vit.layers.{i}"
        block = block_names(get, theirs, NAMES)
        block["attn.q_bias"] = get(f"{theirs}.{NAMES['q']}.bias")
        block["attn.v_bias"] = get(f"{theirs}.{NAMES['v']}.bias")
        found |= {f"vit.blocks.{i}.{n}": v for n, v in block.items()}
    return found


def test_simmim_equals_hugging_face() -> None:
    theirs = their_model().train()
    scatter(theirs)
    for layer in theirs.vit.layers:
        layer.attention.k_proj.bias.data.zero_()
    config = SimMIMConfig(rel_pos_bias=False, layer_scale=0.0, drop_path=0.0, mask_patch_size=4)
    ours = SimMIM(SHAPE, config)
    table = ours.vit.pos_embed
    ours.load_state_dict({**in_our_names(values_of(theirs)), "vit.pos_embed": table})
    theirs.vit.embeddings.position_embeddings.data.copy_(table)
    batch = make_batch(ours)

    output = ours(batch)
    output.loss.backward()
    expected = theirs(batch.images, bool_masked_pos=batch.hidden)
    expected.loss.backward()

    assert abs(output.loss.item() - expected.loss.item()) < 1e-6
    pixels = patchify(expected.reconstruction, SHAPE.patch_size)[batch.hidden]
    assert (output.prediction - pixels).abs().max() < 1e-5
    assert_same_gradients(ours, in_our_names(gradients_of(theirs)))


def test_a_reconstruction_puts_the_predicted_pixels_where_the_mask_was() -> None:
    theirs = their_model().eval()
    scatter(theirs)
    for layer in theirs.vit.layers:
        layer.attention.k_proj.bias.data.zero_()
    ours = SimMIM(SHAPE, SimMIMConfig(rel_pos_bias=False, layer_scale=0.0, mask_patch_size=4))
    table = ours.vit.pos_embed
    ours.load_state_dict({**in_our_names(values_of(theirs)), "vit.pos_embed": table})
    theirs.vit.embeddings.position_embeddings.data.copy_(table)
    batch = make_batch(ours.eval())
    with torch.no_grad():
        found = ours.reconstruct(batch, ours(batch).prediction)
        expected = theirs(batch.images, bool_masked_pos=batch.hidden).reconstruction
    cells = batch.hidden.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert (found - torch.where(cells, expected, batch.images)).abs().max() < 1e-5
