"""A run's encoder in timm: the same names, the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer

from baselines.bootmae.config import BootMAEConfig
from baselines.bootmae.model import BootMAE
from baselines.conmim.config import ConMIMConfig
from baselines.conmim.model import ConMIM
from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.model import Data2Vec
from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from baselines.positions import spread_table
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.model import SimMIM
from bench.api import ClassifierOptions, VisionShape
from bench.streams import Streams
from tests.baselines.parity import scatter

SHAPE = VisionShape(image_size=16, patch_size=4, width=24, depth=3, heads=2)
BASE = VisionShape(image_size=224, patch_size=16, width=768, depth=12, heads=12)
SMALL = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 0,
    "global_pool": "token",
}
SHARED = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}


def made(kind: Any, shape: VisionShape = SHAPE) -> Any:
    configs: dict[Any, Any] = {MAE: MAEConfig, SimMIM: SimMIMConfig, Data2Vec: Data2VecConfig}
    configs |= {BootMAE: BootMAEConfig, ConMIM: ConMIMConfig}
    options = {"target_layers": shape.depth} if kind is Data2Vec else {}
    method = kind(shape, configs[kind](**options))
    scatter(method)
    if kind is ConMIM:
        scatter(method.teacher.requires_grad_(True))
    return method.eval()


def difference(ours: Any, theirs: Any, size: int) -> float:
    """Largest difference of the normalised tokens."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = ours.norm(ours.tokens(images))
        expected = theirs.eval().forward_features(images)
    return float((found - expected).abs().max())


def test_mae_in_timms_vision_transformer() -> None:
    ours = made(MAE).encoder()
    theirs = VisionTransformer(**SMALL)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert difference(ours, theirs, 16) < 1e-5


def test_bootmae_in_timms_beit_with_absolute_positions() -> None:
    ours = made(BootMAE).encoder()
    options = {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": None}
    theirs = Beit(**SMALL, **options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert difference(ours, theirs, 16) < 1e-5


@pytest.mark.parametrize("kind", [SimMIM, Data2Vec, ConMIM])
@pytest.mark.parametrize("each", [False, True])
def test_methods_with_relative_positions_in_timms_beit(kind: Any, each: bool) -> None:
    ours = made(kind).encoder()
    options = {"use_rel_pos_bias": True} if each else SHARED
    theirs = Beit(**SMALL, use_abs_pos_emb=False, init_values=0.1, **options)
    state = ours.state_dict()
    theirs.load_state_dict(spread_table(state, 3) if each else state, strict=True)
    assert difference(ours, theirs, 16) < 1e-5


def test_a_shared_table_copied_into_each_layer_gives_the_same_features() -> None:
    method = made(SimMIM)
    model = method.classifier(ClassifierOptions(classes=5)).eval()
    assert model.style.positions == "relative_each"
    model.load_encoder(method.encoder().state_dict())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        error = model.tokens(images) - method.encoder().tokens(images)
    assert error.abs().max() < 1e-5
    tables = [n for n, _ in model.named_parameters() if n.endswith("bias_table")]
    assert len(tables) == 3


@pytest.mark.parametrize("kind", [MAE, SimMIM, Data2Vec, BootMAE, ConMIM])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_classifier_takes_every_weight_or_says_which_is_missing(kind: Any, pool: str) -> None:
    method = made(kind)
    model = method.classifier(ClassifierOptions(classes=5, pool=pool))
    weights = method.encoder().state_dict()
    model.load_encoder(weights)
    assert torch.equal(model.blocks[2].mlp.fc2.weight, weights["blocks.2.mlp.fc2.weight"])
    weights.pop("blocks.2.mlp.fc2.weight")
    with pytest.raises(Exception, match=r"missing \['blocks.2.mlp.fc2.weight'\]"):
        model.load_encoder(weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        (MAE, "vit_base_patch16_224", {}),
        (SimMIM, "beit_base_patch16_224", SHARED),
    ],
)
def test_create_model_with_checkpoint_path(
    kind: Any, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    method = made(kind, BASE)
    method.reset_parameters(lambda name: Streams(0, 0).generator("init", name))
    ours = method.encoder()
    for inner, parameter in ours.named_parameters():
        if inner.endswith(("bias", "bias_table")):
            parameter.data += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "encoder.safetensors"
    save_file({n: v.detach().contiguous() for n, v in ours.state_dict().items()}, path)
    theirs = timm.create_model(
        name, checkpoint_path=str(path), num_classes=0, global_pool="token", **options
    )
    assert difference(ours, theirs, 224) < 2e-5
