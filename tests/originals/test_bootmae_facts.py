"""BootMAE's numbers: parameters, masks, decay groups, initial values, the teacher's decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines import masking
from baselines.bootmae.config import BootMAEConfig
from baselines.bootmae.model import BootMAE
from bench.api import ClassifierOptions, VisionShape
from bench.errors import RunError, UsageError
from bench.plan.sections import peak_lr
from bench.streams import Streams
from tests.originals.test_baselines_facts import BASE, groups_of, on_meta, resolved

SMALL = VisionShape(image_size=64, patch_size=16, width=24, depth=12, heads=2)
IDS = torch.arange(400)


def stream(ids: torch.Tensor = IDS) -> Any:
    return Streams(0, 0).samples("mask", 0, ids)


def method(shape: VisionShape = BASE, **settings: Any) -> BootMAE:
    made: BootMAE = on_meta(BootMAE, BootMAEConfig(**settings), shape)
    return made


def test_parameters_as_the_original_counts_them() -> None:
    """Two frozen tables are in the first number; the teacher, a copy, in neither."""
    own = {n: p for n, p in method().named_parameters() if not n.startswith("teacher.")}
    assert sum(p.numel() for p in own.values()) == 115_625_411
    assert sum(p.numel() for p in own.values() if p.requires_grad) == 115_373_251


def test_the_pixel_decoders_heads_are_42_wide() -> None:
    attention = method().pixel_decoder.blocks[0].attn
    assert tuple(attention.qkv.weight.shape) == (1512, 512)
    assert tuple(attention.proj.weight.shape) == (512, 504)


def test_83_tensors_are_decayed_both_mask_tokens_among_them() -> None:
    decayed, spared = groups_of(BootMAE(SMALL, BootMAEConfig()), resolved("bootmae").pretrain)
    assert (len(decayed), len(spared)) == (83, 184)
    assert {"pixel_decoder.mask_token", "feature_decoder.mask_token"} <= decayed
    assert "vit.cls_token" in spared


def test_120_patches_lie_in_rectangles_always() -> None:
    blocks = masking.exact_blocks(stream(), 14, 120, (16, 60), 0.3)
    assert blocks.sum(1).tolist() == [120] * len(IDS)
    alone = masking.exact_blocks(stream(torch.tensor([7])), 14, 120, (16, 60), 0.3)
    assert torch.equal(alone[0], blocks[7])


def test_a_rectangle_has_at_most_its_largest_size() -> None:
    """Of one rectangle's worth of patches: 12 asked for, at most 12 in the first."""
    first = masking.exact_blocks(stream(), 14, 12, (12, 12), 0.3)
    assert first.sum(1).unique().tolist() == [12]
    rows = first.view(-1, 14, 14).any(2).sum(1) * first.view(-1, 14, 14).any(1).sum(1)
    assert ((rows == 12).float().mean()) > 0.3, "most are one rectangle and nothing beside it"


def test_rectangles_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(RunError, match="smallest size"):
        masking.exact_blocks(stream(IDS[:2]), 1, 1, (1, 1), 0.9)


def test_147_are_hidden_and_r_of_a_rectangle_show() -> None:
    """r is uniform on 0 to 3; in each image r block patches and 49 - r of the other 76 show."""
    hidden = method().draw_hidden(stream())
    assert hidden.sum(1).tolist() == [147] * len(IDS)
    blocks = masking.exact_blocks(stream(), 14, 120, (16, 60), 0.3)
    shown = (blocks & ~hidden).sum(1)
    shares = torch.bincount(shown, minlength=4) / len(IDS)
    assert shown.max() == 3
    assert (shares - 0.25).abs().max() < 0.08
    outside = (~blocks & ~hidden).sum(1)
    assert torch.equal(shown + outside, torch.full_like(shown, 49))


def test_without_a_roll_no_block_patch_shows() -> None:
    hidden = method(roll=0).draw_hidden(stream())
    blocks = masking.exact_blocks(stream(), 14, 120, (16, 60), 0.3)
    assert (blocks <= hidden).all()


def test_what_shows_is_as_likely_anywhere() -> None:
    """Outside of the blocks and, if r > 0, within: ranks are random, not raster order."""
    blocks = torch.zeros(4000, 16, dtype=torch.bool)
    blocks[:, 6:] = True
    hidden = masking.rolled(stream(torch.arange(4000)), blocks, 4, 3)
    shown = (~hidden).double().mean(0)
    assert (shown[:6] - 2.5 / 6).abs().max() < 0.03
    assert (shown[6:] - 1.5 / 10).abs().max() < 0.03


def test_weights_of_hidden_patches() -> None:
    """Within 1.11 and 2, 1.81 on average over the original's masks."""
    hidden = method().draw_hidden(stream())
    weights = BootMAE(SMALL, BootMAEConfig())
    weights.shape = BASE
    found = weights.weights(hidden)[hidden]
    assert found.min() >= 1 + 1 / 9 - 1e-6
    assert found.max() == 2
    assert abs(found.mean() - 1.81) < 0.02
    plain = BootMAE(SMALL, BootMAEConfig(weight_mask=False))
    assert plain.weights(hidden[:, :16]).eq(1).all()


def test_the_teachers_decay_at_800_epochs() -> None:
    """0.999 at first, 0.9999 at epoch 100, 0.99999 from epoch 400 on."""
    decay = method()._decay
    assert decay(0) == pytest.approx(0.999)
    assert decay(50 / 800) == pytest.approx(0.99945)
    assert decay(100 / 800) == pytest.approx(0.9999)
    assert decay(250 / 800) == pytest.approx(0.999945)
    assert decay(400 / 800) == decay(1.0) == pytest.approx(0.99999)
    large = BootMAE(SMALL, resolved("bootmae", "imagenet-l").hyper)
    assert large.decay(90, 100) == pytest.approx(0.9999)


def test_time_constants_as_shares_of_a_short_run() -> None:
    """0.4 of the run at its half, a tenth of that at an eighth, a hundredth at the start."""
    decay = method(ema_span=0.4).decay
    spans = [1 / (1 - decay(step, 8000)) for step in (0, 1000, 4000, 7999)]
    assert spans == pytest.approx([32, 320, 3200, 3200])
    assert decay(0, 8) == 0.0, "a teacher cannot lag less than a step"


def test_the_feature_loss_rises_over_a_quarter_of_the_run() -> None:
    ramp = method().ramp
    assert [ramp(p) for p in (0.0, 0.125, 0.25, 0.99)] == [0.0, 0.5, 1.0, 1.0]
    assert method(feature_share=0.0).ramp(0.0) == 1.0


def test_initial_values() -> None:
    shape = VisionShape(image_size=64, patch_size=16, width=100, depth=2, heads=5)
    made = BootMAE(shape, BootMAEConfig(decoder_width=64))
    made.reset_parameters(lambda name: Streams(0, 0).generator("init", name))
    values = dict(made.named_parameters())
    bounds = {
        "vit.blocks.0.attn.qkv.weight": (6 / (100 + 100)) ** 0.5,
        "pixel_decoder.blocks.1.attn.qkv.weight": (6 / (60 + 64)) ** 0.5,
        "pixel_decoder.blocks.1.c_attn.kv.weight": (6 / (120 + 100)) ** 0.5,
        "vit.patch_embed.proj.weight": (6 / (768 + 100)) ** 0.5,
        "pixel_head.weight": 768**-0.5,
        "pixel_head.bias": 768**-0.5,
        "pixel_decoder.mask_token": 0.02,
        "feature_decoder.mask_token": 0.02,
    }
    for name, bound in bounds.items():
        largest = values[name].abs().max()
        assert largest <= bound, name
        assert largest > (0.2 if values[name].numel() < 9 else 0.85) * bound, name
    assert values["vit.patch_embed.proj.bias"].eq(0).all()
    assert 1e-7 < values["vit.cls_token"].std() < 1e-5
    for name, slow in made.teacher.named_parameters():
        assert torch.equal(slow, values[f"vit.{name}"]), name


def test_positions_put_the_row_first_and_stay_as_they_are() -> None:
    made = BootMAE(SMALL, BootMAEConfig())
    table = made.vit.pos_embed[0, 1:].view(4, 4, 24)
    assert torch.equal(table[2, 0, :12], table[2, 3, :12]), "one row: one first half"
    assert torch.equal(table[0, 3, 12:], table[2, 3, 12:]), "one column: one second half"
    assert not torch.equal(table[0, 0, :12], table[2, 0, :12])
    classifier = made.classifier(ClassifierOptions(classes=3))
    classifier.load_encoder(made.encoder().state_dict())
    assert torch.equal(classifier.pos_embed, made.vit.pos_embed)
    assert not classifier.pos_embed.requires_grad


def test_the_network_that_is_evaluated() -> None:
    student = BootMAE(SMALL, BootMAEConfig())
    assert student.encoder() is student.vit
    teacher = BootMAE(SMALL, BootMAEConfig(evaluate="teacher"))
    assert teacher.encoder() is teacher.teacher


def test_rates_of_the_recipe() -> None:
    assert peak_lr(resolved("bootmae").pretrain) == pytest.approx(2.4e-3)
    assert resolved("bootmae").pretrain.min_lr == 1e-4
    own = resolved("bootmae", recipe="own").task("finetune")
    assert (peak_lr(own), own.layer_decay, own.warmup_epochs) == (5e-3, 0.6, 20)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"decoder_width": 18}, "multiple of 4"),
        ({"max_block": 3}, "max_block=3 must be at least bootmae.min_block=16"),
        ({"ema_end_share": 0.1}, "ema_end_share"),
        ({"roll": -1}, "roll"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        BootMAEConfig(**settings)
