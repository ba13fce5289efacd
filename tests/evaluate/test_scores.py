"""Scores have right values: an encoder whose features are the labels, and what spoils them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.data.images import ImageSet
from bench.evaluate.finetune import finetune, finetune_once
from bench.evaluate.probe import probe
from bench.plan.sections import AugmentConfig
from tests.evaluate import labelled
from tests.evaluate.labelled import K, config, labels, one_hot, plain, scores, split

TASKS = ("finetune", "probe", "knn")
FROZEN = ("probe", "knn")


def noise(count: int) -> Tensor:
    """Codes that say nothing of the class."""
    return torch.rand(count, K, generator=torch.Generator().manual_seed(count))


def test_features_that_are_the_labels_score_100(tmp_path: Path) -> None:
    assert scores(tmp_path, plain()) == dict.fromkeys(TASKS, 100.0)


def test_permuted_training_labels_score_chance(tmp_path: Path) -> None:
    """A quarter, with codes spread enough for each image to be guessed by itself."""
    truth = labels(400)
    codes = 0.1 * one_hot(truth) + 0.9 * noise(400)
    rest = labels(800, seed=1)
    test = split(rest, 0.1 * one_hot(rest) + 0.9 * noise(800))
    found = scores(tmp_path, ImageSet(split(labels(400, seed=5), codes), test, K))
    assert all(15 <= found[task] <= 35 for task in TASKS), found


def test_labels_that_are_all_the_next_class_score_nothing(tmp_path: Path) -> None:
    images = plain()
    moved = split((images.train.labels + 1) % K, one_hot(images.train.labels))
    assert scores(tmp_path, ImageSet(moved, images.test, K)) == dict.fromkeys(TASKS, 0.0)


def test_the_accuracy_is_that_of_the_test_images(tmp_path: Path) -> None:
    """A quarter of the test images carry another class than their pixels, no training image."""
    truth = labels(600, seed=1)
    pixels = torch.where(torch.arange(600) < 150, truth + 1, truth)
    images = ImageSet(plain().train, split(truth, one_hot(pixels)), K)
    assert scores(tmp_path, images) == dict.fromkeys(TASKS, 75.0)


def test_only_the_labelled_images_are_learnt_from(tmp_path: Path) -> None:
    """All other training images show the next class: whoever takes them in scores 0."""
    settings, images = config(data={"labels": 20}), plain()
    chosen = labelled.used(images, settings)
    assert len(chosen) == 20
    truth = images.train.labels
    pixels = truth + 1
    pixels[chosen] -= 1
    poisoned = ImageSet(split(truth, one_hot(pixels)), images.test, K)
    assert scores(tmp_path, poisoned, settings) == dict.fromkeys(TASKS, 100.0)


def test_labels_20_means_twenty_rows(tmp_path: Path) -> None:
    images, settings = plain(), config(data={"labels": 20})
    given = labelled.encoder(tmp_path, images, settings)
    labelled.run(given)
    method: labelled.Method = given.method  # type: ignore[assignment]
    assert method.vit.seen == 20 + len(images.test), "features are taken once for both tasks"
    (tuned,) = method.made
    assert tuned.seen == 20 * settings.task("finetune").epochs + len(images.test)


def told_by(pooling: str) -> ImageSet:
    """Images of which one pooling names the class and the other is noise."""
    parts = []
    for truth in (labels(200), labels(600, seed=1)):
        codes = {"cls": noise(len(truth)), "mean": noise(len(truth)), pooling: one_hot(truth)}
        parts.append(split(truth, codes["cls"], codes["mean"]))
    return ImageSet(parts[0], parts[1], K)


def test_only_what_is_trained_is_in_training_mode(tmp_path: Path) -> None:
    given = labelled.encoder(tmp_path, plain())
    labelled.run(given)
    method: labelled.Method = given.method  # type: ignore[assignment]
    (tuned,) = method.made
    steps = 200 // 20 * given.config.task("finetune").epochs
    assert tuned.modes[:steps] == [True] * steps
    assert set(tuned.modes[steps:]) == {False}
    assert set(method.vit.modes) == {False}
    assert not method.vit.weight.requires_grad


@pytest.mark.parametrize("telling", ["cls", "mean"])
@pytest.mark.parametrize("asked", ["cls", "mean"])
def test_a_probe_that_augments_each_step_looks_at_its_own_pooling(
    asked: str, telling: str, tmp_path: Path
) -> None:
    whole = AugmentConfig(interpolation="bilinear")  # not the plain images, though they look alike
    settings = config(probe={"pool": asked, "augment": whole})
    given = labelled.encoder(tmp_path, told_by(telling), settings)
    found = probe(given, settings.task("probe")).top1
    assert given.method.vit.seen == 200 * settings.task("probe").epochs + 600  # type: ignore[attr-defined]
    assert found == 100.0 if asked == telling else 10 <= found <= 45


@pytest.mark.parametrize("telling", ["cls", "mean"])
@pytest.mark.parametrize("asked", ["cls", "mean"])
@pytest.mark.parametrize("task", TASKS)
def test_each_task_looks_at_its_own_pooling(
    task: str, asked: str, telling: str, tmp_path: Path
) -> None:
    """One pooling names the class, the other is noise; the other tasks ask for the other one."""
    images = told_by(telling)
    other = {"cls": "mean", "mean": "cls"}[asked]
    pools = {name: {"pool": asked if name == task else other} for name in TASKS}
    found = scores(tmp_path, images, config(**pools))
    if asked == telling:
        assert found[task] == 100.0
    else:
        assert 10 <= found[task] <= 45


def test_an_encoder_that_was_not_loaded_sees_nothing(tmp_path: Path) -> None:
    """Its features are all 0: the frozen tasks name one class, fine-tuning starts from nothing."""
    found = scores(tmp_path, plain(), weights={"weight": torch.zeros(K, K)})
    assert [found[task] for task in FROZEN] == [25.0, 25.0]


@pytest.mark.parametrize("task", FROZEN)
def test_scores_follow_the_weights(task: str, tmp_path: Path) -> None:
    """A weight that maps two classes to one direction leaves the two others told apart."""
    merged = torch.eye(K)
    merged[3] = merged[2]
    assert 50 <= scores(tmp_path, plain(), weights={"weight": merged})[task] <= 75


def test_fine_tuning_starts_from_the_weights_and_from_a_head_of_the_recipe(tmp_path: Path) -> None:
    """Without a learning rate both are as they started."""
    still = {"lr": 0.0, "min_lr": 0.0, "head_init_std": 0.5}
    settings = config(finetune={**still, "drop_path": 0.1, "pool": "cls"})
    given = labelled.encoder(tmp_path, plain(), settings)
    labelled.run(given)
    (model,) = given.method.made  # type: ignore[attr-defined]
    assert torch.equal(model.weight, torch.eye(K))
    assert 0.2 < model.head.weight.std() < 0.9
    assert not model.head.bias.any()
    assert (model.options.classes, model.options.drop_path, model.options.pool) == (K, 0.1, "cls")


def test_the_head_is_drawn_anew_for_each_repeat_and_seed(tmp_path: Path) -> None:
    heads = []
    for number, (repeat, seed) in enumerate([(0, 0), (1, 0), (0, 1), (0, 0)]):
        settings = config(finetune={"lr": 0.0, "min_lr": 0.0, "repeat": repeat})
        object.__setattr__(settings, "seed", seed)
        given = labelled.encoder(tmp_path / str(number), plain(), settings)
        labelled.run(given)
        heads.append(given.method.made[0].head.weight)  # type: ignore[attr-defined]
    assert torch.equal(heads[0], heads[3])
    for other in heads[1:3]:
        assert not (heads[0] == other).any()


def test_every_repeat_takes_the_images_in_the_same_order_by_another_noise(tmp_path: Path) -> None:
    """The second repeat is another fine-tuning of the same labels: its head ends elsewhere."""
    ends = []
    for repeat in (0, 1):
        given = labelled.encoder(
            tmp_path / str(repeat), plain(), config(finetune={"repeat": repeat})
        )
        assert labelled.run(given)["finetune"] == 100.0
        ends.append(given.method.made[0].head.weight)  # type: ignore[attr-defined]
    assert not torch.equal(*ends)


def test_draws_of_labels_are_averaged_as_one_score(tmp_path: Path) -> None:
    """Three draws: three classifiers, each from another head, and the mean of their accuracies."""
    few = config(data={"labels": 20}, finetune={"draws": 3, "epochs": 3})
    given = labelled.encoder(tmp_path / "all", plain(), few)
    whole = finetune(given, few.task("finetune"))
    score, seconds = whole.top1, whole.seconds
    assert seconds is not None
    assert seconds > 0
    single = []
    for draw in range(3):
        one = labelled.encoder(tmp_path / str(draw), plain(), few)
        single.append(finetune_once(one, few.task("finetune"), draw).top1)
        made = given.method.made[draw], one.method.made[0]  # type: ignore[attr-defined]
        assert torch.equal(made[0].head.weight, made[1].head.weight)
    assert score == pytest.approx(sum(single) / 3)
    weights = [m.head.weight for m in given.method.made]  # type: ignore[attr-defined]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    stages = {line["stage"] for line in given.session.monitor.folder.metrics()}
    assert stages == {"finetune", "finetune 1", "finetune 2"}


def test_a_training_set_of_one_batch_is_enough(tmp_path: Path) -> None:
    settings = config(finetune={"batch_size": 512, "epochs": 60}, probe={"batch_size": 512})
    assert scores(tmp_path, plain(), settings)["finetune"] == 100.0


def test_what_the_head_learns_is_logged_by_epoch(tmp_path: Path) -> None:
    given = labelled.encoder(tmp_path, plain())
    labelled.run(given)
    lines = given.session.monitor.folder.metrics()
    tuned = [line for line in lines if line["stage"] == "finetune"]
    assert [(line["epoch"], line["step"]) for line in tuned] == [(e, 10 * e) for e in range(1, 6)]
    assert tuned[-1]["loss"] < tuned[0]["loss"]
