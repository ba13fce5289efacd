"""ConMIM's numbers: parameters, masks, decay groups, momentum, groups of its batch norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.conmim.config import ConMIMConfig
from baselines.conmim.model import ConMIM
from baselines.conmim.projector import GroupedBatchNorm
from bench.api import ClassifierOptions, VisionShape
from bench.errors import UsageError
from bench.plan.sections import peak_lr
from bench.streams import Streams
from tests.originals.test_baselines_facts import groups_of, on_meta, resolved

SMALL = VisionShape(image_size=64, patch_size=16, width=24, depth=12, heads=2)
LM_HEAD = 768 * 8192 + 8192
"""Parameters of a head that the original makes and never uses; it is not made here."""


def test_parameters_as_the_original_counts_them() -> None:
    method = on_meta(ConMIM, ConMIMConfig())
    own = {n: p.numel() for n, p in method.named_parameters() if not n.startswith("teacher.")}
    assert sum(own.values()) + LM_HEAD == 112_953_680
    assert sum(n for name, n in own.items() if "projector" in name) == 20_987_904
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_55_and_141_tensors_with_the_unused_head() -> None:
    """The original has a head as well, matrix and bias, and trains the last norm's bias."""
    decayed, spared = groups_of(ConMIM(SMALL, ConMIMConfig()), resolved("conmim").pretrain)
    assert (len(decayed) + 1, len(spared) + 2) == (55, 141)
    table = "student.vit.rel_pos_bias.relative_position_bias_table"
    assert {"mask_token", table} <= decayed
    assert "student.vit.cls_token" in spared


def test_the_last_norms_bias_stays_at_nought() -> None:
    """Its gradient is nought but for rounding, which AdamW would divide by its own size."""
    method = ConMIM(SMALL, ConMIMConfig())
    for tower in (method.student, method.teacher):
        assert not tower.vit.norm.bias.requires_grad
        assert tower.vit.norm.bias.eq(0).all()


def test_37_of_49_cells_are_hidden() -> None:
    method = on_meta(ConMIM, ConMIMConfig())
    hidden = method.draw_hidden(Streams(0, 0).samples("mask", 0, torch.arange(50)))
    assert hidden.sum(1).tolist() == [148] * 50
    assert method.hidden_count == 148


def test_momentum_rises_to_one_by_a_cosine_of_the_step() -> None:
    method = on_meta(ConMIM, ConMIMConfig())
    found = [method.momentum(step, 100) for step in (0, 50, 100)]
    assert found == pytest.approx([0.996, 0.998, 1.0])
    short = on_meta(ConMIM, ConMIMConfig(momentum_span=0.05))
    assert short.momentum(0, 1000) == pytest.approx(1 - 1 / 50)
    assert short.momentum(500, 1000) == pytest.approx(1 - 0.5 / 50)
    assert short.momentum(0, 10) == 0.0


def test_only_parameters_are_averaged_and_each_by_its_name() -> None:
    method = ConMIM(SMALL, ConMIMConfig(momentum=0.5))
    with torch.no_grad():
        for number, p in enumerate(method.student.parameters()):
            p.fill_(number + 1.0)
        for p in method.teacher.parameters():
            p.zero_()
    method.after_step(0, 10)
    for number, p in enumerate(method.teacher.parameters()):
        assert torch.allclose(p, torch.full_like(p, (number + 1) / 2))


def test_a_group_has_statistics_of_its_own() -> None:
    layer = GroupedBatchNorm(5, images=2, affine=False)
    x = torch.randn(5, 7, 5)
    found = layer(x)
    for group in (slice(0, 2), slice(2, 4), slice(4, 5)):
        rows = found[group].flatten(0, 1)
        assert rows.mean(0).abs().max() < 1e-6
        assert (rows.var(0, correction=0) - 1).abs().max() < 1e-3
        assert torch.equal(layer(x[group]), found[group])
    whole = GroupedBatchNorm(5, images=0, affine=False)(x).flatten(0, 1)
    assert whole.mean(0).abs().max() < 1e-6
    assert not torch.allclose(whole, found.flatten(0, 1))


def test_evaluation_receives_the_teacher_or_as_configured_the_student() -> None:
    assert ConMIMConfig().evaluate == "teacher"
    teacher, student = (
        ConMIM(SMALL, ConMIMConfig()),
        ConMIM(SMALL, ConMIMConfig(evaluate="student")),
    )
    assert teacher.encoder() is teacher.teacher.vit
    assert student.encoder() is student.student.vit
    classifier = teacher.classifier(ClassifierOptions(classes=3))
    assert classifier.style.positions == "relative_each"


def test_rates_of_the_recipe() -> None:
    pretrain = resolved("conmim").pretrain
    assert (peak_lr(pretrain), pretrain.betas, pretrain.clip_grad) == (7.5e-4, (0.9, 0.98), 1.0)
    own = resolved("conmim", recipe="own").task("finetune")
    assert (peak_lr(own), own.layer_decay, own.warmup_epochs) == (4e-3, 0.65, 20)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"jitter": (0.4, 0.4, 0.2, 0.6)}, r"jitter.* must lie in \[0, 0.5\]"),
        ({"jitter": (-0.4, 0.4, 0.2, 0.1)}, r"jitter.* must lie in \[0, 1\]"),
        ({"blur_radius": (2.0, 1.0)}, "blur_radius.* must rise"),
        ({"temperature": 0.0}, "temperature"),
        ({"norm_images": -1}, "norm_images"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        ConMIMConfig(**settings)
