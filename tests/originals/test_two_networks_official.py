"""Checkpoints of BootMAE and ConMIM: official names in, student and teacher told apart."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from baselines.bootmae.config import BootMAEConfig
from baselines.bootmae.model import BootMAE
from baselines.conmim.config import ConMIMConfig
from baselines.conmim.model import ConMIM
from bench.api import VisionShape
from bench.errors import UsageError
from bench.run import main
from bench.work.released import encoder_weights
from tests.originals.test_baselines_official import block

SHAPE = VisionShape(image_size=32, patch_size=8, width=24, depth=2, heads=3)
TOKENS, ROWS, WIDE = 17, 7 * 7 + 3, 24
NARROW, INNER = 16, 15
"""Width of the pixel decoder and of its three heads of floor(16 / 3)."""

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def decoder_block(prefix: str, width: int, inner: int) -> Shapes:
    shapes: Shapes = {
        f"{prefix}attn.q_bias": (inner,),
        f"{prefix}attn.v_bias": (inner,),
        f"{prefix}attn.qkv.weight": (3 * inner, width),
        f"{prefix}c_attn.q_bias": (inner,),
        f"{prefix}c_attn.v_bias": (inner,),
        f"{prefix}c_attn.q.weight": (inner, width),
        f"{prefix}c_attn.kv.weight": (2 * inner, WIDE),
        **layer(f"{prefix}attn.proj", width, inner),
        **layer(f"{prefix}c_attn.proj", width, inner),
        **layer(f"{prefix}mlp.fc1", 4 * width, width),
        **layer(f"{prefix}mlp.fc2", width, 4 * width),
    }
    for name, size in (("norm1", width), ("norm2", width), ("norm3", width), ("norm4", WIDE)):
        shapes |= norm(prefix + name, size)
    return shapes


def encoder(beit: bool) -> Shapes:
    shapes: Shapes = {
        "cls_token": (1, 1, WIDE),
        "patch_embed.proj.weight": (WIDE, 3, 8, 8),
        "patch_embed.proj.bias": (WIDE,),
        **norm("norm", WIDE),
    }
    for i in range(2):
        shapes |= block(f"blocks.{i}.", WIDE, beit=True)
    if beit:
        shapes["rel_pos_bias.relative_position_bias_table"] = (ROWS, 3)
        shapes["rel_pos_bias.relative_position_index"] = (TOKENS, TOKENS)
        return shapes
    shapes["pos_embed"] = (1, TOKENS, WIDE)
    return {n: s for n, s in shapes.items() if "gamma" not in n}


def bootmae() -> Shapes:
    shapes = encoder(beit=False)
    shapes |= {"de_pos_embed": (1, TOKENS, NARROW)}
    shapes |= {"mask_token": (1, 1, NARROW), "mask_token_1": (1, 1, WIDE)}
    shapes |= layer("down", NARROW, WIDE) | layer("down_1", WIDE, WIDE)
    for i in range(2):
        shapes |= decoder_block(f"decode_blocks.{i}.", NARROW, INNER)
        shapes |= decoder_block(f"decode_blocks_1.{i}.", WIDE, WIDE)
    shapes |= norm("decode_norm", NARROW) | norm("decode_norm_1", WIDE)
    shapes |= {"lm_head.proj.weight": (NARROW, 3, 8, 8), "lm_head.proj.bias": (3,)}
    return shapes | layer("lm_head_1", WIDE, WIDE)


def conmim() -> Shapes:
    shapes = encoder(beit=True) | {"mask_token": (1, 1, WIDE)} | layer("lm_head", 8192, WIDE)
    shapes |= {"projectors.0.weight": (12, WIDE), "projectors.3.weight": (12, 12)}
    shapes |= {"projectors.6.weight": (10, 12), **norm("projectors.1", 12)}
    shapes |= norm("projectors.4", 12)
    for place, width in ((1, 12), (4, 12), (7, 10)):
        shapes[f"projectors.{place}.running_mean"] = (width,)
        shapes[f"projectors.{place}.running_var"] = (width,)
        shapes[f"projectors.{place}.num_batches_tracked"] = ()
    return shapes


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.zeros(s, dtype=torch.long)
        if n.endswith(("index", "tracked"))
        else torch.randn(s, generator=generator)
        for n, s in shapes.items()
    }


def made(name: str, evaluate: str = "") -> Any:
    asked: Any = {"evaluate": evaluate} if evaluate else {}
    if name == "bootmae":
        return BootMAE(SHAPE, BootMAEConfig(decoder_width=NARROW, **asked))
    return ConMIM(SHAPE, ConMIMConfig(projector_width=12, projector_out=10, **asked))


OFFICIAL = {"bootmae": bootmae, "conmim": conmim}


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_full_file_fills_the_whole_method(name: str) -> None:
    method, state = made(name), drawn(OFFICIAL[name]())
    imported = method.import_official(state)
    assert set(imported) == set(method.state_dict())
    method.load_state_dict(imported)
    for slow, fast in zip(*method._pairs(), strict=True):
        assert torch.equal(slow, fast)
        assert slow.data_ptr() != fast.data_ptr()
    assert torch.equal(method.encoder().blocks[1].mlp.fc1.bias, state["blocks.1.mlp.fc1.bias"])


def test_each_part_of_bootmae_finds_its_place() -> None:
    method, state = made("bootmae"), drawn(bootmae())
    method.load_state_dict(method.import_official(state))
    pairs = {
        "mask_token": method.pixel_decoder.mask_token,
        "mask_token_1": method.feature_decoder.mask_token,
        "de_pos_embed": method.pixel_positions,
        "down.weight": method.pixel_decoder.embed.weight,
        "down_1.weight": method.feature_decoder.embed.weight,
        "decode_blocks.1.c_attn.kv.weight": method.pixel_decoder.blocks[1].c_attn.kv.weight,
        "decode_blocks_1.0.norm4.bias": method.feature_decoder.blocks[0].norm4.bias,
        "decode_norm.weight": method.pixel_decoder.norm.weight,
        "decode_norm_1.weight": method.feature_decoder.norm.weight,
        "lm_head.proj.weight": method.pixel_head.weight,
        "lm_head_1.bias": method.feature_head.bias,
    }
    for official, ours in pairs.items():
        assert torch.equal(state[official], ours), official


def test_each_part_of_conmim_finds_its_place() -> None:
    method, state = made("conmim"), drawn(conmim())
    method.load_state_dict(method.import_official(state))
    assert torch.equal(state["mask_token"], method.mask_token)
    for place in (0, 1, 3, 4, 6):
        assert torch.equal(
            state[f"projectors.{place}.weight"], method.student.projector[place].weight
        )


@pytest.mark.parametrize("name", OFFICIAL)
def test_missing_and_left_over_names_are_named(name: str) -> None:
    state, method = drawn(OFFICIAL[name]()), made(name)
    lost = "blocks.1.mlp.fc1.bias"
    with pytest.raises(UsageError, match=r"missing vit\.blocks\.1\.mlp\.fc1\.bias"):
        method.import_official({n: v for n, v in state.items() if n != lost})
    with pytest.raises(UsageError, match=r"left over .*fc_norm.weight"):
        method.import_official({**state, "fc_norm.weight": torch.zeros(WIDE)})
    with pytest.raises(UsageError, match=r"another shape .*fc1.bias"):
        method.import_official({**state, lost: torch.zeros(3)})


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_encoder_alone_is_enough_to_evaluate(name: str, tmp_path: Path) -> None:
    method, state = made(name), drawn(encoder(beit=name == "conmim"))
    save_file(state, tmp_path / "encoder.safetensors")
    found = encoder_weights(method, tmp_path / "encoder.safetensors")
    assert set(found) == set(method.encoder().state_dict())
    assert torch.equal(found["norm.weight"], state["norm.weight"])


def test_bootmaes_file_holds_both_networks(tmp_path: Path) -> None:
    """``model`` is the student, ``model_ema`` the teacher, beside what training left."""
    student, teacher = drawn(bootmae(), 1), drawn(bootmae(), 2)
    path = tmp_path / "BootMAE_Base_800_PT.pth"
    beside = {"optimizer": {"state": {}}, "epoch": 799, "args": argparse.Namespace(lr=1e-4)}
    torch.save({"model": student, "model_ema": teacher, **beside}, path)
    for network, state in (("student", student), ("teacher", teacher)):
        found = encoder_weights(made("bootmae", network), path)
        assert torch.equal(found["norm.weight"], state["norm.weight"]), network
    torch.save({"model": student, "epoch": 799}, path)
    with pytest.raises(UsageError, match=r"under none of model_ema: epoch, model"):
        encoder_weights(made("bootmae", "teacher"), path)


def test_conmims_files_hold_one_network_each(tmp_path: Path) -> None:
    """``checkpoint_copy-*`` is the teacher, which is evaluated, ``checkpoint-*`` the student."""
    state = drawn(conmim())
    files = {"teacher": "checkpoint_copy-799.pth", "student": "checkpoint-799.pth"}
    for network, file in files.items():
        torch.save({"model": state, "epoch": 799}, tmp_path / file)
        found = encoder_weights(made("conmim", network), tmp_path / file)
        assert torch.equal(found["norm.weight"], state["norm.weight"])
    with pytest.raises(UsageError, match=r"name of ConMIM's student.*conmim.evaluate=student"):
        encoder_weights(made("conmim"), tmp_path / files["student"])
    with pytest.raises(UsageError, match=r"name of ConMIM's teacher"):
        encoder_weights(made("conmim", "student"), tmp_path / files["teacher"])
    torch.save({"model": state}, tmp_path / "anything.pth")
    encoder_weights(made("conmim"), tmp_path / "anything.pth")


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_encoder_comes_out_of_our_own_files(name: str, tmp_path: Path) -> None:
    method = made(name)
    whole = {n: torch.randn_like(v) for n, v in method.state_dict().items()}
    method.load_state_dict(whole)
    save_file(method.encoder().state_dict(), tmp_path / "encoder.safetensors")
    save_file(whole, tmp_path / "method.safetensors")
    for file in ("encoder", "method"):
        found = encoder_weights(method, tmp_path / f"{file}.safetensors")
        for inner, value in method.encoder().state_dict().items():
            assert torch.equal(found[inner], value), inner


SIZES = [f"model.{n}={getattr(SHAPE, n)}" for n in ("image_size", "patch_size", "width", "depth")]
MORE = {
    "bootmae": ["bootmae.decoder_width=16"],
    "conmim": [
        *("conmim.projector_width=12", "conmim.projector_out=10"),
        *("conmim.rel_pos_bias=true", "conmim.layer_scale=0.1"),
    ],
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_init_evaluates_a_file_from_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint_copy-799.pth"
    torch.save({"model": drawn(OFFICIAL[name]())}, file)
    line = ["--preset", "procedural", "--methods", name, "--epochs", "800", "--seeds", "1"]
    line += ["--init", str(file), "--out", str(tmp_path / "out"), "--launcher", "inline"]
    tiny = ["finetune.epochs=1", "finetune.warmup_epochs=0", "probe.epochs=1"]
    tiny += ["probe.warmup_epochs=0", "data.train_images=64", "data.test_images=32"]
    tiny += ["data.labels=16", "model.heads=3"]
    assert main([*line, *SIZES, *MORE[name], *tiny]) == 0
    assert name in capsys.readouterr().out
