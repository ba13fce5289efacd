"""Decoding and augmenting an ImageNet-style folder: our feed against other well-kept ways.

JPEGs of about ImageNet's size (500 x 375, quality 90) are written from the procedural set. One
process, so that a figure is a core's; a ratio is an arm's time over our feed's. And whole commands
on small PNGs: decoding in the run's process beside loader processes under the default launcher.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import crops, load
from bench.data.batch import FeedConfig
from bench.data.feed import make_feed
from bench.data.sets.procedural import procedural
from bench.plan import layers, resolve, typed
from bench.plan.config import RunConfig
from bench.plan.sections import DataConfig
from bench.run import main
from bench.streams import Streams
from tests.benchmarks.side_by_side import race

pytestmark = [pytest.mark.benchmark(group="loader"), pytest.mark.timeout(900)]

COUNT, SIZE, BATCH = 128, 224, 64
FORM = (500, 375)
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("jpegs")
    config = DataConfig(name="procedural", mean=(0.5,) * 3, std=(0.25,) * 3)
    config = replace(config, train_images=COUNT, test_images=16, classes=16)
    split = procedural(config, "", 256).train
    for index in range(COUNT):
        for part in ("train", "val"):
            path = root / part / f"{int(split.labels[index]):02}" / f"{index:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            split.open(index).resize(FORM, Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def paths(folder: Path) -> list[Path]:
    return sorted((folder / "train").rglob("*.jpg"))


def recipe_of_mae() -> RunConfig:
    resolver = resolve.Resolver(layers.load_preset("imagenet"))
    return resolver.resolve(typed.parse_arm("mae"), 1, 0)


def our_feed(folder: Path) -> Callable[[], None]:
    config = recipe_of_mae()
    images = load.load(replace(config, data=replace(config.data, name="folder")), str(folder))
    feed = make_feed(
        images.train,
        torch.arange(COUNT),
        FeedConfig(
            data=config.data,
            augment=config.pretrain.augment,
            image_size=SIZE,
            batch_size=BATCH,
            drop_last=False,
            streams=Streams(0, 0),
            purpose="pretrain",
            device=torch.device("cpu"),
        ),
    )

    def epoch() -> None:
        for step in feed.epoch(0):
            assert step.images.shape[1:] == (3, SIZE, SIZE)

    return epoch


def by_torchvision(folder: Path, decode: str) -> Callable[[], None]:
    """torchvision's v2 transforms on pictures (``pil``) or on decoded tensors (``tensor``)."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    names = paths(folder)
    steps = [
        v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    transform = v2.Compose(steps)

    def one(path: Path) -> Any:
        if decode == "pil":
            return transform(Image.open(path).convert("RGB"))
        return transform(decode_image(str(path), ImageReadMode.RGB))

    def epoch() -> None:
        for start in range(0, COUNT, BATCH):
            torch.stack([one(path) for path in names[start : start + BATCH]])

    return epoch


def batched_crops(folder: Path) -> Callable[[], None]:
    """Decoded by torchvision, then cropped and resized a batch at a time, as ArrayFeed does."""
    from torchvision.io import ImageReadMode, decode_image

    names, streams = paths(folder), Streams(0, 0)
    augment = recipe_of_mae().pretrain.augment

    def epoch() -> None:
        for start in range(0, COUNT, BATCH):
            ids = torch.arange(start, min(COUNT, start + BATCH))
            images = torch.stack([decode_image(str(names[i]), ImageReadMode.RGB) for i in ids])
            boxes = crops.crop_boxes(streams.samples("crop", 0, ids), augment, FORM[0] / FORM[1])
            crops.crop(images.float(), boxes, SIZE, "bicubic")

    return epoch


def decoding_alone(folder: Path) -> Callable[[], None]:
    names = paths(folder)
    return lambda: [Image.open(path).convert("RGB").load() for path in names] and None


def test_the_loader_against_others(benchmark: Any, folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    arms = {
        "our feed": our_feed(folder),
        "torchvision v2 on pictures": by_torchvision(folder, "pil"),
        "torchvision v2 on tensors": by_torchvision(folder, "tensor"),
        "batched crops": batched_crops(folder),
        "decoding alone": decoding_alone(folder),
    }
    try:
        race(benchmark, arms, ROUNDS)
    finally:
        torch.set_num_threads(threads)
    rates = {name: COUNT / taken for name, taken in benchmark.extra_info["seconds"].items()}
    benchmark.extra_info["images_per_s"] = rates
    for name, rate in rates.items():
        print(f"  {name:32} {rate:8,.0f} images/s on one core")


PLACES = {
    "inline, --workers 0": ["--launcher", "inline", "--workers", "0"],
    "default, --workers 0": ["--workers", "0"],
    "default, --workers 2": ["--workers", "2"],
}
"""Where pictures are decoded, by launcher; the first is what the others are held to."""

EPOCHS = 10


@pytest.fixture(scope="module")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("pngs"), np.random.default_rng(0)
    for part, count in (("train", 128), ("val", 8)):
        for name in "abcdefgh":
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def command(pngs: Path, out: Path, place: list[str]) -> dict[str, Any]:
    """A study of one run; the record of its pre-training, which decodes in every epoch."""
    shutil.rmtree(out, ignore_errors=True)
    line = ["--methods", "mae", "--seeds", "1", "--epochs", str(EPOCHS), "--preset", "smoke"]
    line += ["--tasks", "knn", "--data", f"folder:{pngs}", "--out", str(out), "--device", "cpu"]
    line += ["--threads", "1", *place, "data.labels=0", "data.train_images=0"]
    line += ["data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]", "model.channels=3"]
    line += ["model.image_size=32", "model.patch_size=8", "pretrain.augment.crop_scale=[0.2,1]"]
    assert main(line) == 0
    (record,) = (json.loads(p.read_text()) for p in out.rglob("pre-*/record.json"))
    return dict(record)


def test_loader_processes_pay_under_the_default_launcher(
    benchmark: Any, pngs: Path, tmp_path: Path
) -> None:
    """Images/s of all of pre-training, its first epoch and whatever enters its time included."""
    rates: dict[str, list[float]] = {name: [] for name in PLACES}

    def arm(name: str) -> None:
        record = command(pngs, tmp_path / "out", PLACES[name])
        rates[name].append(record["images_seen"] / record["pretrain_s"])

    benchmark.pedantic(lambda: [arm(name) for name in PLACES], rounds=ROUNDS, iterations=1)
    first = rates["inline, --workers 0"]
    for name, found in rates.items():
        ratio = median(own / base for own, base in zip(found, first, strict=True))
        benchmark.extra_info[name] = {"images_per_s": found, "ratio": ratio}
        print(f"  {name:32} {median(found):8,.0f} images/s   x{ratio:.2f}")
        assert ratio > 0.7, "what starts a process or its imports enters the time of a run"
