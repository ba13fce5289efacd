from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.plan import resolve, typed
from bench.plan.layers import load_preset
from bench.train.method import build_method


def built(arm: str, std: float) -> dict[str, Any]:
    layers = (*load_preset("digits"), typed.parse_overrides([f"{arm}.init_std={std}"]))
    config = resolve.Resolver(layers).resolve(typed.parse_arm(arm), 2, 0)
    return dict(build_method(config).state_dict())


@pytest.mark.parametrize("arm", ["simmim", "data2vec"])
def test_init_std_scales_what_beit_draws_and_nothing_else(arm: str) -> None:
    small, large = built(arm, 0.02), built(arm, 0.08)
    scaled = {n for n, v in small.items() if not torch.equal(v, large[n])}
    for name in scaled:
        torch.testing.assert_close(large[name], 4 * small[name])
    assert {"mask_token", "vit.cls_token", "vit.patch_embed.proj.weight"} <= scaled
    assert {"vit.blocks.3.attn.qkv.weight", "vit.blocks.3.mlp.fc2.weight"} <= scaled
    kept = {n for n in small if "norm" in n or n.endswith("bias") or n.startswith("decoder")}
    assert not scaled & kept
