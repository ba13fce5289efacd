"""A recipe sized from facts: valid for any folder, and by the rules that it states."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bench import registry
from bench.plan import sense
from bench.plan.keys import check_keys
from bench.plan.layers import load_preset
from bench.plan.resolve import Resolver
from bench.plan.sections import warmup
from bench.plan.sized import Facts, geometry, labels_of_each, sized, undivided
from bench.plan.typed import parse_arm


def facts(counts: tuple[int, ...], side: int = 32, channels: int = 3, unlabelled: int = 0) -> Facts:
    values = (0.5,) * channels
    seen = {"side": side, "mean": values, "std": values, "unlabelled": unlabelled}
    return Facts(name="folder", counts=counts, tests=9, **seen)


COUNTS = ((1, 1), (2, 0, 3), (120,) * 4, (9, 4000), (5000,) * 10, (60,) * 1000, (200,) * 1000)
SIZES = ((1, 3, 0), (28, 1, 70_000), (50, 3, 0), (97, 3, 10), (500, 3, 200_000))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("counts", COUNTS, ids=[f"{len(c)}x{max(c)}" for c in COUNTS])
def test_any_folder_has_a_recipe_that_every_method_here_can_run(
    counts: tuple[int, ...], gpu: bool
) -> None:
    for side, channels, unlabelled in SIZES:
        found = facts(counts, side, channels, unlabelled)
        layer = sized(found, gpu)
        read: dict[str, Any] = yaml.safe_load(yaml.safe_dump(layer))
        check_keys(read, "it")
        resolver = Resolver((*load_preset(read["extends"]), read))
        for method in registry.METHODS.rows:
            config = resolver.resolve(parse_arm(method), read["epochs"][0], 0)
            if layer["extends"] == "imagenet":
                continue
            sense.check(config)
            assert 1 <= config.pretrain.batch_size <= max(1, found.images // 8)
            assert warmup(config.pretrain) == config.pretrain.warmup_share * read["epochs"][0]
            squares = getattr(config.hyper, "mask_patch_size", config.model.patch_size)
            assert config.model.image_size % squares == 0
            labels = config.data.labels or found.labelled
            assert config.task("finetune").batch_size <= max(2, labels // 5)
            assert labels % config.task("probe").batch_size != 1
            assert config.data.labels <= min(n for n in counts if n) * len([n for n in counts if n])


def test_patches_are_few_without_a_gpu_and_the_size_is_the_images_own_as_far_as_that_goes() -> None:
    for side in range(4, 2000):
        image, patch = geometry(side, False)
        assert (image // patch) ** 2 in (16, 36)
        assert patch <= 16
        assert abs(image - side) <= 5 or image == 96 < side
    assert geometry(32, False) == (32, 8)
    assert geometry(28, False) == (28, 7)
    assert geometry(32, True) == (32, 4)
    assert geometry(400, True) == (224, 16)


def test_imagenets_recipe_is_for_many_large_images_alone() -> None:
    many, few = (100,) * 1000, (99,) * 1000
    assert sized(facts(many, 224), False)["extends"] == "imagenet"
    assert sized(facts(few, 224), False)["extends"] == "own"
    assert sized(facts(few, 224), True)["extends"] == "own-gpu"
    assert sized(facts(many, 32), True)["extends"] == "own-gpu"
    assert sized(facts(few, 224, unlabelled=10**6), True)["extends"] == "own-gpu"


def test_unlabelled_images_size_pretraining_and_labelled_ones_the_evaluation() -> None:
    few, more = (sized(facts((50,) * 4, 64, unlabelled=n), True) for n in (0, 5000))
    assert (few["pretrain"]["batch_size"], more["pretrain"]["batch_size"]) == (25, 512)
    for task in ("finetune", "probe"):
        assert few[task] == more[task]


def test_labels_are_as_many_of_each_class_as_there_are_or_as_tell() -> None:
    assert labels_of_each((120,) * 4) == 40
    assert labels_of_each((120, 7, 120)) == 7
    assert labels_of_each((120, 0, 120)) == 80
    assert labels_of_each((50,) * 100) == 8


def test_no_batch_norm_meets_one_image() -> None:
    for images in range(2, 3000):
        batch = undivided(images, 512)
        assert images % batch != 1
        assert 2 <= batch <= images
    assert undivided(513, 512) == 511
