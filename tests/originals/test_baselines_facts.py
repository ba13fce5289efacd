"""The originals' numbers: parameters, masks, decay groups, layer scales, initial values, rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines import masking
from baselines.data2vec.config import Data2VecConfig
from baselines.data2vec.model import Data2Vec
from baselines.mae.config import MAEConfig
from baselines.mae.model import MAE
from baselines.simmim.config import SimMIMConfig
from baselines.simmim.model import SimMIM
from bench.api import ClassifierOptions, VisionShape
from bench.evaluate.finetune import finetune_optimizer
from bench.plan import resolve, typed
from bench.plan.config import RunConfig
from bench.plan.layers import load_preset, load_recipe, merged
from bench.plan.sections import peak_lr
from bench.streams import Streams
from bench.train import optim

BASE = VisionShape(image_size=224, patch_size=16, width=768, depth=12, heads=12)
STREAMS = Streams(0, 0)


def on_meta(kind: Any, config: Any, shape: VisionShape = BASE) -> Any:
    with torch.device("meta"):
        return kind(shape, config)


def million(parameters: Any) -> float:
    return round(sum(p.numel() for p in parameters) / 1e6, 3)


def resolved(method: str, preset: str = "imagenet", recipe: str = "") -> RunConfig:
    values = merged(load_preset(preset))
    layers = (values, load_recipe(recipe, values))
    return resolve.Resolver(layers).resolve(typed.parse_arm(method), 800, 0)


def test_parameters_of_mae() -> None:
    method = on_meta(MAE, MAEConfig())
    assert million(method.parameters()) == 111.908
    assert million(p for p in method.parameters() if p.requires_grad) == 111.656


def test_parameters_of_simmim() -> None:
    assert million(on_meta(SimMIM, SimMIMConfig()).parameters()) == 86.257


def test_parameters_of_data2vec() -> None:
    method = on_meta(Data2Vec, Data2VecConfig())
    assert million(p for n, p in method.named_parameters() if "teacher" not in n) == 86.257
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_mae_hides_147_of_196_patches() -> None:
    hidden = masking.random_patches(STREAMS.samples("mask", 0, torch.arange(500)), 196, 0.75)
    assert hidden.sum(1).tolist() == [147] * 500
    assert (hidden.float().mean(0) - 0.75).abs().max() < 0.08


def test_simmim_hides_30_of_49_cells_of_32_pixels() -> None:
    hidden = masking.random_cells(STREAMS.samples("mask", 0, torch.arange(50)), 14, 2, 0.6)
    assert hidden.sum(1).tolist() == [120] * 50
    cells = hidden.view(50, 7, 2, 7, 2)
    assert (cells.all(4).all(2) == cells.any(4).any(2)).all()


def test_data2vec_hides_rectangles_as_the_original_generator_does() -> None:
    """Measured on the original, 5,000 draws: mean 119.5, at least 109, 68.6 % full."""
    stream = STREAMS.samples("mask", 0, torch.arange(4000))
    counts = masking.blocks(stream, 14, 120, 16, 0.3).sum(1).float()
    assert counts.max() == 120
    assert counts.min() >= 100
    assert abs(counts.mean() - 119.5) < 0.1
    assert abs((counts == 120).float().mean() - 0.686) < 0.03


def groups_of(method: Any, recipe: Any) -> tuple[set[str], set[str]]:
    """Names of decayed and undecayed parameters in pre-training."""
    optimizer = optim.pretrain_optimizer(method, recipe, method.no_weight_decay())
    names = {id(p): n for n, p in method.named_parameters()}
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for group in optimizer.param_groups:
        found[group["weight_decay"] > 0] |= {names[id(p)] for p in group["params"]}
    return found[True], found[False]


@pytest.fixture(scope="module")
def small() -> VisionShape:
    return VisionShape(image_size=32, patch_size=16, width=16, depth=12, heads=2)


def test_mae_decays_85_tensors_tokens_included(small: VisionShape) -> None:
    method = MAE(small, MAEConfig())
    decayed, spared = groups_of(method, resolved("mae").pretrain)
    assert (len(decayed), len(spared)) == (85, 167)
    assert {"vit.cls_token", "mask_token"} <= decayed


@pytest.mark.parametrize("kind", [SimMIM, Data2Vec])
def test_beit_style_groups_spare_the_class_token_alone(kind: Any, small: VisionShape) -> None:
    config = SimMIMConfig() if kind is SimMIM else Data2VecConfig()
    decayed, spared = groups_of(kind(small, config), resolved("simmim").pretrain)
    assert {"mask_token", "vit.rel_pos_bias.relative_position_bias_table"} <= decayed
    wide = {n for n in spared if not n.endswith(("bias", "gamma_1", "gamma_2"))}
    assert {n for n in wide if "norm" not in n} == {"vit.cls_token"}


@pytest.mark.parametrize("name", ["mae", "simmim", "data2vec"])
def test_layer_scales_equal_maes_for_vit_b(name: str, small: VisionShape) -> None:
    config = resolved(name)
    kind = {"mae": MAE, "simmim": SimMIM, "data2vec": Data2Vec}[name]
    model = kind(small, config.hyper).classifier(ClassifierOptions(classes=5))
    optimizer = finetune_optimizer(model, config.task("finetune"))
    names = {id(p): n for n, p in model.named_parameters()}
    scale = {names[id(p)]: g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    decay = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for parameter, found in scale.items():
        assert found == pytest.approx(0.65 ** (13 - layer_of(parameter))), parameter
    assert len(set(scale.values())) == 14
    assert decay["cls_token"] == 0
    assert decay["head.weight"] == decay["blocks.0.attn.qkv.weight"] == 0.05
    if name == "mae":
        assert decay["pos_embed"] == 0
    optim.cosine(optimizer, 100, 0).step_update(0)
    rates = {g["lr"] / g["lr_scale"] for g in optimizer.param_groups}
    peak = peak_lr(config.task("finetune"))
    assert max(rates) == pytest.approx(min(rates)) == pytest.approx(peak)


def layer_of(name: str) -> int:
    """The layer number that MAE's util/lr_decay.py and BEiT's optim_factory.py give."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 13


def test_initial_values_of_mae() -> None:
    shape = VisionShape(image_size=32, patch_size=8, width=64, depth=2, heads=2)
    method = MAE(shape, MAEConfig(decoder_width=32, decoder_depth=1, decoder_heads=2))
    method.reset_parameters(lambda name: STREAMS.generator("init", name))
    state = dict(method.named_parameters())
    for name, fan in (("blocks.0.attn.qkv", 64 + 192), ("patch_embed.proj", 192 + 64)):
        weight = state[f"vit.{name}.weight"]
        bound = (6 / fan) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound
    assert 0 < state["vit.patch_embed.proj.bias"].abs().max() <= 192**-0.5
    assert state["vit.blocks.0.attn.qkv.bias"].abs().max() == 0
    assert 0.01 < state["mask_token"].std() < 0.03


def test_initial_values_of_simmim_and_data2vec() -> None:
    shape = VisionShape(image_size=32, patch_size=8, width=64, depth=4, heads=2)
    for method in (SimMIM(shape, SimMIMConfig()), Data2Vec(shape, Data2VecConfig(target_layers=4))):
        method.reset_parameters(lambda name: STREAMS.generator("init", name))
        state = dict(method.named_parameters())
        assert 0.0195 < state["vit.blocks.3.attn.qkv.weight"].abs().max() <= 0.02
        for layer in (0, 3):
            most = 0.02 / (2 * (layer + 1)) ** 0.5
            for name in ("attn.proj", "mlp.fc2"):
                found = state[f"vit.blocks.{layer}.{name}.weight"].abs().max()
                assert 0.97 * most < found <= most * 1.0001
        assert state["vit.patch_embed.proj.bias"].abs().max() == 0
        assert state["vit.rel_pos_bias.relative_position_bias_table"].abs().max() == 0
        assert torch.equal(
            state["vit.blocks.0.gamma_1"], torch.full((64,), method.config.layer_scale)
        )
    bias = dict(SimMIM(shape, SimMIMConfig()).named_parameters())["decoder.0.bias"]
    assert bias.abs().max() <= 64**-0.5


def test_the_teacher_starts_as_the_students_copy() -> None:
    shape = VisionShape(image_size=32, patch_size=8, width=64, depth=2, heads=2)
    method = Data2Vec(shape, Data2VecConfig(target_layers=2))
    method.reset_parameters(lambda name: STREAMS.generator("init", name))
    for name, slow in method.teacher.named_parameters():
        assert torch.equal(slow, method.vit.get_parameter(name))


def test_peak_rates_of_the_papers() -> None:
    assert peak_lr(resolved("mae").pretrain) == pytest.approx(2.4e-3)
    assert peak_lr(resolved("simmim").pretrain) == pytest.approx(4e-4)
    assert peak_lr(resolved("data2vec").pretrain) == pytest.approx(2e-3)
    assert peak_lr(resolved("mae").task("finetune")) == pytest.approx(2e-3)
    assert peak_lr(resolved("mae").task("probe")) == pytest.approx(6.4)
    assert peak_lr(resolved("simmim", recipe="own").task("finetune")) == pytest.approx(5e-3)
    assert peak_lr(resolved("data2vec", recipe="own").task("finetune")) == pytest.approx(4e-3)


def test_recipes_by_name_differ_where_paper_and_repository_do() -> None:
    repo, paper = (resolved("mae", recipe=r).task("finetune") for r in ("repo", "paper"))
    assert (repo.blr, repo.layer_decay) == (5e-4, 0.65)
    assert (paper.blr, paper.layer_decay) == (1e-3, 0.75)
    large = resolved("mae", "imagenet-l").task("finetune")
    assert (large.epochs, large.blr, large.layer_decay, large.drop_path) == (50, 1e-3, 0.75, 0.2)
    assert resolved("mae", recipe="repo") == resolved("mae")
    assert resolved("data2vec", recipe="own").task("finetune").weight_decay == 0
    with pytest.raises(Exception, match="Did you mean 'paper'"):
        resolved("mae", recipe="papers")


@pytest.mark.parametrize(("preset", "size"), [("imagenet-s", 21.6), ("imagenet-l", 303.2)])
def test_encoders_of_the_other_sizes(preset: str, size: float) -> None:
    config = resolved("mae", preset)
    method = on_meta(MAE, config.hyper, config.model)
    assert million(method.encoder().parameters()) == pytest.approx(size, abs=0.2)


def rates(config: Any, steps: int) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=peak_lr(config))
    scheduler = optim.pretrain_scheduler(optimizer, config, steps)
    found = []
    for step in range(config.epochs * steps):
        scheduler.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_maes_rate_is_zero_at_step_zero_then_follows_its_formula() -> None:
    import math

    config, steps = resolved("mae").pretrain, 3
    found, peak = rates(config, steps), peak_lr(config)
    assert found[0] == 0
    assert found[60] == pytest.approx(peak * 20 / 40)
    for step in (120, 121, 900, 2399):
        share = (step / steps - 40) / (800 - 40)
        assert found[step] == pytest.approx(peak * 0.5 * (1 + math.cos(math.pi * share)), rel=1e-6)


def test_simmims_rate_falls_tenfold_at_epoch_700_of_800() -> None:
    config, steps = resolved("simmim").pretrain, 3
    found, peak = rates(config, steps), peak_lr(config)
    assert found[0] == 0
    assert found[30] == found[700 * steps - 1] == pytest.approx(peak)
    assert found[700 * steps] == found[-1] == pytest.approx(peak / 10)


def test_data2vecs_rate_ends_at_its_floor() -> None:
    config = resolved("data2vec").pretrain
    assert rates(config, 3)[-1] == pytest.approx(1e-5, rel=0.1)
    assert Data2VecConfig().ema_anneal_share == 0


def test_gpu_presets_say_bf16_and_small_ones_fp32() -> None:
    for preset, precision in (("imagenet", "bf16"), ("digits", "fp32")):
        config = resolved("mae", preset)
        recipes = [config.pretrain, config.task("finetune"), config.task("probe")]
        assert [recipe.precision for recipe in recipes] == [precision] * 3
