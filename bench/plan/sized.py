"""A recipe for images of one's own, sized from what was seen of them: facts to settings. Pure.

What comes out is a suite file's content for a first, pilot verdict: every number in it follows from
the facts by a rule written here, and the user may change each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import sqrt
from typing import Any

from bench import registry
from bench.plan.keys import Layer
from bench.plan.typed import example_arm

OWN, OWN_GPU, LARGE = "own", "own-gpu", "imagenet"
"""Presets that a sized recipe extends: small or without a GPU, on a GPU, and ImageNet's."""

MANY, LARGE_PX = 100_000, 128
"""From so many labelled training images of at least this size on, ImageNet's recipe is taken."""

PATCH = 16
"""Pixels of the largest patch, as in ViT-S/16."""

SHARE = 8
"""A batch holds no more than this part of the images it is from: an epoch has as many steps."""

SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen: training images of each class, test images, their usual shorter side in px.

    ``unlabelled`` images pre-train as well. ``mean`` and ``std`` are of the channels of all that
    pre-train, in [0, 1]; ``grey`` says that they hold no colour.
    """

    name: str
    counts: tuple[int, ...]
    tests: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey: bool = False
    unlabelled: int = 0

    @property
    def labelled(self) -> int:
        """Training images."""
        return sum(self.counts)

    @property
    def images(self) -> int:
        """Images that pre-train: the training images and the unlabelled ones."""
        return self.labelled + self.unlabelled


def sized(facts: Facts, gpu: bool) -> dict[str, Any]:
    """The suite file for a first verdict: a layer that ``extends`` a preset."""
    if facts.labelled >= MANY and facts.side >= LARGE_PX:
        return _suite(LARGE, facts, {"recipe": "scaled", "epochs": [100, 200]})
    side, patch = geometry(facts.side, gpu)
    shape = {"image_size": side, "patch_size": patch, "channels": len(facts.mean)}
    given = _on_gpu(facts, shape) if gpu else _on_cpu(facts, shape)
    squares = 2 * patch if gpu else patch
    return _suite(OWN_GPU if gpu else OWN, facts, {**given, **_masked_squares(squares)})


def _suite(preset: str, facts: Facts, given: Mapping[str, Any]) -> dict[str, Any]:
    """The layer in the order in which one reads it."""
    data = {"name": facts.name, "mean": list(facts.mean), "std": list(facts.std)}
    data |= given.get("data", {})
    arms = [registry.METHODS.ordered()[0], example_arm()]
    head = {"extends": preset, "methods": arms, "epochs": given["epochs"], "seeds": SEEDS}
    return {**head, **given, "data": data}


def geometry(side: int, gpu: bool) -> tuple[int, int]:
    """Image size and patch size nearest to the images' own: 16 or 36 patches, 64 or 196 on a GPU.

    Grids are even, so that masked squares of two patches divide them.
    """
    grids = (4, 6) if not gpu else (8,) if side < 160 else (14,)
    sizes = [(grid, min(PATCH, max(1, round(side / grid)))) for grid in grids]
    grid, patch = min(sizes, key=lambda s: (abs(s[0] * s[1] - side), s[0]))
    return grid * patch, patch


def _on_cpu(facts: Facts, shape: Mapping[str, int]) -> dict[str, Any]:
    """Of about as many steps as digits takes to 200 epochs; some labels of each class."""
    small = shape["image_size"] <= 64
    width = (
        {"width": 48, "depth": 4, "heads": 3} if small else {"width": 96, "depth": 6, "heads": 3}
    )
    batch = batch_of(facts.images, 64)
    each = labels_of_each(facts.counts)
    labels = each * len([n for n in facts.counts if n])
    crops = {} if small else {"augment": {"crop_scale": [0.2, 1.0], "flip": 0.5}}
    return {
        "epochs": budgets(facts.images, batch, 1600, (10, 200)),
        "data": {"labels": labels},
        "model": {**shape, **width},
        "pretrain": {"batch_size": batch, **crops},
        "finetune": {"batch_size": min(64, max(2, labels // 5)), "draws": 3 if labels < 600 else 1},
        "probe": {"batch_size": undivided(labels, 512)},
        "knn": {"k": min(5, each)},
    }


def _on_gpu(facts: Facts, shape: Mapping[str, int]) -> dict[str, Any]:
    """ViT-Ti, or ViT-S for many large images; rates go with the root of the batch, as for Adam."""
    many = facts.images >= 20_000 and shape["image_size"] > 128
    heads = (
        {"width": 384, "depth": 12, "heads": 6} if many else {"width": 192, "depth": 12, "heads": 3}
    )
    batch, tuning = batch_of(facts.images, 512), batch_of(facts.labelled, 256)
    return {
        "epochs": budgets(facts.images, batch, 5000, (50, 400)),
        "model": {**shape, **heads},
        "pretrain": {"batch_size": batch, "lr_batch": round(256 * sqrt(batch / 512))},
        "finetune": {"batch_size": tuning, "lr_batch": round(256 * sqrt(tuning / 256))},
        "probe": {"batch_size": undivided(facts.labelled, 1024)},
    }


def batch_of(images: int, most: int) -> int:
    """A batch of at most an eighth of the images."""
    return max(1, min(most, images // SHARE))


def budgets(images: int, batch: int, steps: int, bounds: tuple[int, int]) -> list[int]:
    """Half a budget and the whole of it, of about so many steps, within bounds in epochs."""
    half = round(steps / max(1, images // batch) / 2)
    half = min(max(half, bounds[0] // 2), bounds[1] // 2)
    return [half, 2 * half]


def fitted(values: Layer, facts: Facts) -> tuple[dict[str, Any], list[str]]:
    """What a preset of other images cannot mean for these, replaced by what was seen; in words.

    ``values`` are the preset's. Images of other channels have mean and sd of their own, and labels
    are shared by the classes that there are.
    """
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    said: list[str] = []
    if values["model"].get("channels") != len(facts.mean):
        model["channels"] = len(facts.mean)
        data |= {"mean": list(facts.mean), "std": list(facts.std)}
        said = [
            f"model.channels={len(facts.mean)}, data.mean and data.std are those of {facts.name}"
        ]
    there, labels = [n for n in facts.counts if n], values["data"].get("labels", 0)
    if labels and there and (labels % len(there) or labels // len(there) > min(there)):
        data["labels"] = len(there) * min(max(1, round(labels / len(there))), min(there))
        said.append(
            f"data.labels={data['labels']} instead of {labels}, which the {len(there)} classes of "
            f"{facts.name} cannot share"
        )
    return {name: part for name, part in (("data", data), ("model", model)) if part}, said


def labels_of_each(counts: tuple[int, ...]) -> int:
    """Labels of a class that evaluation may see: 160 in all, at least 8, no more than there are."""
    there = [n for n in counts if n] or [1]
    return min(min(there), max(8, -(-160 // len(there))))


def undivided(images: int, most: int) -> int:
    """The largest batch that leaves no single image over, which a batch norm cannot take."""
    return next((b for b in range(min(images, most), 1, -1) if images % b != 1), 2)


def _masked_squares(pixels: int) -> dict[str, Any]:
    """The side of masked squares, for the methods here that have such a setting."""
    name = "mask_patch_size"
    methods = registry.METHODS.rows
    have = [m for m in methods if name in {f.name for f in fields(registry.METHODS.config(m))}]
    return {method: {name: pixels} for method in have}
