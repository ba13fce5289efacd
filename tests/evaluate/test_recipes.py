"""What a recipe makes of a training: rates, groups, momentum, mixing; what is off unless set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import StorageError, UsageError
from bench.evaluate.attentive import AttentiveConfig
from bench.evaluate.evaluation import evaluate
from bench.evaluate.finetune import FinetuneConfig, FinetuneLoss
from bench.evaluate.knn import KnnConfig, knn_vote
from bench.evaluate.probe import ProbeConfig, probe_optimizer
from bench.plan.sections import NOT_AUGMENTED, peak_lr
from bench.store.folder import RunFolder
from bench.store.scores import KeptScores
from bench.train import loop
from tests.evaluate import labelled
from tests.evaluate.labelled import K, plain
from tests.evaluate.test_attentive import encoder as attentive_encoder
from tests.originals.test_baselines_facts import resolved

EPOCHS, WARM, STEPS = 6, 2, 10
RECIPES: dict[str, Any] = {
    "finetune": FinetuneConfig(
        epochs=EPOCHS,
        warmup_epochs=WARM,
        batch_size=20,
        blr=0,
        lr=0.1,
        min_lr=0.02,
        weight_decay=0.3,
        layer_decay=0.5,
        clip_grad=0.7,
        precision="fp16",
    ),
    "probe": ProbeConfig(
        optimizer="sgd", epochs=EPOCHS, warmup_epochs=WARM, batch_size=20, blr=1.28, pool="mean"
    ),
    "attentive": AttentiveConfig(epochs=EPOCHS, warmup_epochs=WARM, batch_size=20, blr=1.28),
}


class SeenError(Exception):
    """Ends a task where its training would begin."""


def job_of(task: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> loop.Job:
    """What a task hands to the loop, 200 images in batches of 20."""
    seen: list[loop.Job] = []

    def fit(job: loop.Job, session: loop.Session) -> None:
        seen.append(job)
        raise SeenError

    monkeypatch.setattr(loop, "fit", fit)
    with pytest.raises(SeenError):
        registry.TASKS.load(task)(attentive_encoder(folder, plain()), RECIPES[task])
    return seen[0]


def rate(job: loop.Job, step: int) -> float:
    job.scheduler.step_update(step)
    return max(float(group["lr"]) for group in job.optimizer.param_groups)


@pytest.mark.parametrize("task", RECIPES)
def test_rates_warm_up_by_epochs_and_fall_to_the_end(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, last = job_of(task, tmp_path, monkeypatch), 0.02 if task == "finetune" else 0.0
    warm, total = WARM * STEPS, EPOCHS * STEPS
    found = [rate(job, step) for step in (0, warm // 2, warm, (warm + total) // 2, total)]
    assert found == pytest.approx([0, 0.05, 0.1, (0.1 + last) / 2, last])
    assert (job.epochs, job.total) == (EPOCHS, total)


@pytest.mark.parametrize("task", ["probe", "attentive"])
def test_every_process_trains_the_same_head_on_the_whole_batch(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job_of(task, tmp_path, monkeypatch).replicated


def test_fine_tuning_decays_by_depth_and_matrices_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelled.Classifier, "no_weight_decay", lambda self: {"weight"})
    job = job_of("finetune", tmp_path, monkeypatch)
    names = {id(p): name for name, p in job.module.named_parameters()}
    groups = {names[id(p)]: group for group in job.optimizer.param_groups for p in group["params"]}
    decays = {name: group["weight_decay"] for name, group in groups.items()}
    assert decays == {"weight": 0.0, "head.weight": 0.3, "head.bias": 0.0}
    scales = {groups[name]["lr_scale"] for name in ("weight", "head.weight")}
    assert scales == {0.5, 1.0}
    assert (job.clip_grad, job.precision) == (0.7, "fp16")


# --- optimisers and losses ------------------------------------------------------------------------


def test_the_probes_sgd_has_the_momentum_of_the_original() -> None:
    """With gradients of 1 the second step is 1.9 times the first."""
    module = nn.Linear(2, 2)
    optimizer = probe_optimizer(module, ProbeConfig(optimizer="sgd", batch_size=256, blr=0.5))
    begin, moved = module.weight.detach().clone(), []
    for _ in range(2):
        module.weight.grad = torch.ones(2, 2)
        optimizer.step()
        moved.append(float((begin - module.weight.detach())[0, 0]))
    assert moved == pytest.approx([0.5, 0.5 + 0.5 * 1.9])


def loss_of(folder: Path, **changes: Any) -> FinetuneLoss:
    recipe = FinetuneConfig(epochs=1, batch_size=8, blr=0.1, **changes)
    return FinetuneLoss(None, recipe, labelled.encoder(folder, plain()).session, K)


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}], ids=str)
def test_images_are_mixed_where_either_way_is_asked_for(
    mixing: Mapping[str, float], tmp_path: Path
) -> None:
    loss = loss_of(tmp_path, **mixing, mixup_switch=0.25, label_smoothing=0.3)
    given: Any = loss.mixup
    assert (given.switch_prob, given.label_smoothing, given.num_classes) == (0.25, 0.3, K)
    assert loss_of(tmp_path).mixup is None


def test_labels_of_unmixed_images_are_smoothed(tmp_path: Path) -> None:
    logits, truth = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([0])
    log = logits.log_softmax(1)[0]
    wanted = -(0.7 * log[0] + 0.3 * log.mean())
    assert loss_of(tmp_path, label_smoothing=0.3)._criterion(logits, truth) == pytest.approx(
        float(wanted)
    )


def test_the_vote_is_taken_on_the_device_of_the_queries() -> None:
    train: tuple[Tensor, Tensor] = (torch.eye(3), torch.tensor([2, 0, 1]))
    query = torch.eye(3)[:2]
    with torch.device("meta"):
        assert knn_vote(query, train, (1, 0.07), 3).tolist() == [2, 0]


# --- features and scores --------------------------------------------------------------------------


def test_features_are_taken_in_the_precision_of_pretraining_unless_told(tmp_path: Path) -> None:
    settings = labelled.config()
    pretrain = dataclasses.replace(settings.pretrain, precision="bf16")
    given = labelled.encoder(
        tmp_path,
        plain(8, 8),
        dataclasses.replace(settings, pretrain=pretrain),
        {"weight": torch.full((K, K), 1 / 3)},
    )
    found = {p: given.features("mean", given.images.test, None, p)[0] for p in ("", "fp32", "bf16")}
    assert torch.equal(found[""], found["bf16"])
    assert not torch.equal(found["fp32"], found["bf16"])
    assert given.device == torch.device("cpu")


def test_a_score_of_a_run_that_is_no_longer_this_processs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptScores(RunFolder(tmp_path / "pre"))
    kept.folder.path.mkdir()
    settings = dataclasses.replace(labelled.config(), tasks=(("knn", KnnConfig()),))
    given = labelled.encoder(tmp_path / "a", plain(), settings)

    def gone() -> None:
        raise StorageError("vanished")

    monkeypatch.setattr(given.session.monitor, "check", gone)
    monkeypatch.setattr(given.session.monitor, "silent", True)
    with pytest.raises(StorageError, match="vanished"):
        evaluate(given, kept, {"commit": "abc", "dirty": False})
    assert not list(kept.folder.path.glob("scores/*"))


# --- what is not set ------------------------------------------------------------------------------


def test_defaults_are_those_the_imagenet_preset_writes_down_with_their_sources() -> None:
    """What it sets beyond a plain fine-tuning is off unless it is set."""
    config, bare = resolved("mae"), {"precision": "fp32", "augment": NOT_AUGMENTED}
    assert KnnConfig() == config.task("knn")
    assert ProbeConfig() == dataclasses.replace(config.task("probe"), **bare)
    tuned = config.task("finetune")
    off = dict.fromkeys(("warmup_epochs", "drop_path", "mixup", "cutmix", "label_smoothing"), 0)
    simple = FinetuneConfig(epochs=tuned.epochs, batch_size=tuned.batch_size, blr=tuned.blr)
    assert simple == dataclasses.replace(tuned, **off, layer_decay=1, **bare)
    assert (simple.lr, simple.clip_grad, simple.repeat, simple.draws) == (0, 0, 0, 1)


def test_base_rates_are_those_of_256_images() -> None:
    for recipe in (
        ProbeConfig(batch_size=256),
        AttentiveConfig(batch_size=256),
        FinetuneConfig(epochs=1, batch_size=256, blr=0.1),
    ):
        assert peak_lr(recipe) == pytest.approx(recipe.blr)


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"mixup": 100.5}, "at most 100"), ({"head_init_std": 10.5}, "must lie in")],
    ids=str,
)
def test_what_no_fine_tuning_can_mean_is_refused(setting: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FinetuneConfig(epochs=1, batch_size=1, blr=0.1, **setting)  # type: ignore[arg-type]
