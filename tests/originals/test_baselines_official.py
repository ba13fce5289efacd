"""Released checkpoints: official names in, ours out, nothing missing or left over."""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.model import Data2Vec
from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.model import SimMIM
from bench.api import VisionShape
from bench.errors import UsageError
from bench.run import main
from bench.work.released import encoder_weights, fingerprint, read_weights

SHAPE = VisionShape(image_size=32, patch_size=8, width=16, depth=2, heads=2)
TOKENS, ROWS, PIXELS = 17, 7 * 7 + 3, 3 * 8 * 8
MADE = {
    "mae": (MAE, MAEConfig(decoder_width=8, decoder_depth=2, decoder_heads=2)),
    "simmim": (SimMIM, SimMIMConfig()),
    "data2vec": (Data2Vec, Data2VecConfig(target_layers=1)),
}


def made(name: str) -> Any:
    kind, config = MADE[name]
    return kind(SHAPE, config)


def block(prefix: str, width: int, beit: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    if beit:
        extra = ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2")
        shapes |= dict.fromkeys(extra, (width,))
    else:
        shapes["attn.qkv.bias"] = (3 * width,)
    return {prefix + n: s for n, s in shapes.items()}


def encoder(beit: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 16),
        "patch_embed.proj.weight": (16, 3, 8, 8),
        "patch_embed.proj.bias": (16,),
        "norm.weight": (16,),
        "norm.bias": (16,),
    }
    if beit:
        shapes["rel_pos_bias.relative_position_bias_table"] = (ROWS, 2)
        shapes["rel_pos_bias.relative_position_index"] = (TOKENS, TOKENS)
    else:
        shapes["pos_embed"] = (1, TOKENS, 16)
    for i in range(2):
        shapes |= block(f"blocks.{i}.", 16, beit)
    return shapes


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every name and shape of a full official checkpoint at this small size."""
    if name == "data2vec":
        head = {"mask_token": (1, 1, 16), "lm_head.weight": (16, 16), "lm_head.bias": (16,)}
        return {**encoder(beit=True), **head}
    if name == "simmim":
        inside = {f"encoder.{n}": s for n, s in encoder(beit=True).items()}
        head = {"decoder.0.weight": (PIXELS, 16, 1, 1), "decoder.0.bias": (PIXELS,)}
        return {**inside, "encoder.mask_token": (1, 1, 16), **head}
    shapes = encoder(beit=False)
    shapes |= {"mask_token": (1, 1, 8), "decoder_pos_embed": (1, TOKENS, 8)}
    shapes |= {"decoder_embed.weight": (8, 16), "decoder_embed.bias": (8,)}
    shapes |= {"decoder_norm.weight": (8,), "decoder_norm.bias": (8,)}
    shapes |= {"decoder_pred.weight": (PIXELS, 8), "decoder_pred.bias": (PIXELS,)}
    for i in range(2):
        shapes |= block(f"decoder_blocks.{i}.", 8, beit=False)
    return shapes


def official(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        n: torch.zeros(s, dtype=torch.long)
        if n.endswith("index")
        else torch.randn(s, generator=generator)
        for n, s in official_shapes(name).items()
    }


@pytest.mark.parametrize("name", MADE)
def test_a_full_release_fills_the_whole_method(name: str) -> None:
    method, state = made(name), official(name)
    imported = method.import_official(state)
    assert set(imported) == set(method.state_dict())
    method.load_state_dict(imported)
    prefix = "encoder." if name == "simmim" else ""
    inner = f"{prefix}blocks.1.attn.qkv.weight"
    assert torch.equal(method.vit.blocks[1].attn.qkv.weight, state[inner])
    assert torch.equal(method.mask_token, state[("encoder." if prefix else "") + "mask_token"])
    if name == "data2vec":
        assert torch.equal(method.teacher.blocks[1].attn.qkv.weight, state[inner])


@pytest.mark.parametrize("name", MADE)
def test_an_encoder_alone_gives_exactly_the_encoder(name: str) -> None:
    method = made(name)
    outside = ("mask_token", "encoder.mask_token", "decoder", "lm_head")
    state = {n: v for n, v in official(name).items() if not n.startswith(outside)}
    imported = method.import_official(state)
    assert set(imported) == {f"vit.{n}" for n in method.vit.state_dict()}


@pytest.mark.parametrize("name", MADE)
def test_missing_and_left_over_names_are_named(name: str) -> None:
    state = official(name)
    lost = next(n for n in state if n.endswith("blocks.1.mlp.fc1.bias"))
    with pytest.raises(UsageError, match=r"missing vit\.blocks\.1\.mlp\.fc1\.bias"):
        made(name).import_official({n: v for n, v in state.items() if n != lost})
    with pytest.raises(UsageError, match=r"left over .*head.weight"):
        made(name).import_official({**state, "head.weight": torch.zeros(2, 16)})
    with pytest.raises(UsageError, match=r"another shape .*fc1.bias"):
        made(name).import_official({**state, lost: torch.zeros(3)})


def test_another_methods_release_is_refused() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        made("mae").import_official(official("data2vec"))


def test_files_are_read_without_running_code(tmp_path: Path) -> None:
    state = official("mae")
    torch.save({"model": state, "args": argparse.Namespace(epochs=800)}, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        read = read_weights(tmp_path / name)
        assert all(torch.equal(read[n], state[n]) for n in state)
    torch.save({"model": state, "bad": pytest.raises}, tmp_path / "b.pth")
    with pytest.raises(UsageError, match="Only tensors"):
        read_weights(tmp_path / "b.pth")
    with pytest.raises(UsageError, match="does not exist"):
        fingerprint(tmp_path / "c.pth")


def test_what_releases_carry_beside_weights_does_not_stop_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimMIM's settings are a yacs node, data2vec's learning rates numpy numbers."""
    module = types.ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    settings = node(MODEL=node(TYPE="vit"))
    settings.__dict__["frozen"] = True
    rates = {"param_groups": [{"lr": np.float64(1e-3), "steps": np.int64(3)}]}
    state = official("simmim")
    torch.save({"model": state, "config": settings, "optimizer": rates}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    assert set(read_weights(tmp_path / "a.pth")) == set(state)


@pytest.mark.parametrize("name", MADE)
def test_an_encoder_comes_out_of_any_file(name: str, tmp_path: Path) -> None:
    method = made(name)
    whole = {n: torch.randn_like(v) for n, v in method.state_dict().items()}
    for file, state in {
        "encoder": {n[4:]: v for n, v in whole.items() if n.startswith("vit.")},
        "method": whole,
        "official": official(name),
    }.items():
        path = tmp_path / f"{file}.safetensors"
        save_file(state, path)
        found = encoder_weights(method, path)
        assert set(found) == set(method.encoder().state_dict())
        if file != "official":
            assert torch.equal(found["norm.weight"], whole["vit.norm.weight"])


def test_identity_is_the_content_not_the_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"other")
    first, second, third = (fingerprint(tmp_path / n) for n in "abc")
    assert first == second != third


@pytest.mark.parametrize("name", MADE)
def test_the_layers_of_a_release_are_measured_without_training(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(official(name), tmp_path / "released.safetensors")
    sizes = ["model.image_size=32", "model.patch_size=8", "model.width=16", "model.depth=2"]
    more = {
        "mae": ["mae.decoder_width=8", "mae.decoder_depth=2", "mae.decoder_heads=2"],
        "simmim": [],
        "data2vec": ["data2vec.target_layers=1", "data2vec.min_block=2"],
    }[name]
    path = str(tmp_path / "released.safetensors")
    line = ["analyze", path, "--method", name, "--images", "3", "--to", str(tmp_path / "layers")]
    assert main([*line, "model.heads=2", *sizes, *more]) == 0
    assert "file" in capsys.readouterr().out
    stored = json.loads((tmp_path / "layers" / "layers.json").read_text())
    (point,) = stored[path]
    assert len(point["heterogeneity"]) == 2
    assert all(0 <= h <= 1 for h in point["heterogeneity"])
    assert all(0 <= m <= 1 for m in point["mass_to_masked"])
