from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from bench.data import load
from bench.data.augment import augmented, centred, posterize
from bench.data.batch import FeedConfig
from bench.data.crops import crop, crop_boxes
from bench.data.decode import UnreadableError, header
from bench.data.decoder import Decoder
from bench.data.feed import ArrayFeed, FileFeed, _Pictures, evaluation_batches, make_feed
from bench.data.images import ArraySplit, FileSplit, ImageSet
from bench.data.load import labelled_subset
from bench.data.sets.folder import image_folder
from bench.errors import DataError, MachineError, UsageError
from bench.plan import layers
from bench.plan.sections import AugmentConfig, DataConfig
from bench.streams import Streams
from bench.work.failure import classify
from tests.conftest import tiny_study

CPU = torch.device("cpu")


def digits() -> ImageSet:
    return load.load(tiny_study("mae").cells[0].config, "")


def feed_config(config: DataConfig, augment: AugmentConfig, **more: int) -> FeedConfig:
    return FeedConfig(
        data=config,
        augment=augment,
        image_size=more.get("size", 8),
        batch_size=more.get("batch", 100),
        drop_last=bool(more.get("drop_last", False)),
        streams=Streams(0, 0),
        purpose="test",
        device=CPU,
        workers=more.get("workers", 0),
    )


def test_digits_are_split_once_and_for_all() -> None:
    images = digits()
    assert (len(images.train), len(images.test), images.classes) == (1024, 773, 10)
    assert images.fingerprint() == "cbf10c9dca8a2092-9c1e7e05f72c35d5"
    counts = images.train.labels.bincount()
    assert counts.max() - counts.min() <= 6


def test_procedural_images_are_generated_from_a_fixed_seed() -> None:
    sizes = ["data.name=procedural", "data.train_images=32", "data.test_images=16"]
    study = tiny_study("mae", more=sizes).cells[0].config
    first, second = load.load(study, ""), load.load(study, "")
    assert torch.equal(first.train.images, second.train.images)
    assert first.train.images.shape == (32, 1, 8, 8)
    assert first.train.images.float().std() > 20


def test_the_label_subset_is_balanced_and_drawn_per_seed() -> None:
    split = digits().train
    one, two = (labelled_subset(split, 100, Streams(0, s)) for s in (0, 1))
    assert split.labels[one].bincount().tolist() == [10] * 10
    assert len(set(one.tolist()) & set(two.tolist())) < 40
    assert torch.equal(labelled_subset(split, 0, Streams(0, 0)), torch.arange(1024))
    with pytest.raises(DataError, match=r"data\.labels=5000"):
        labelled_subset(split, 5000, Streams(0, 0))


def test_every_draw_of_labels_is_another_choice() -> None:
    split = digits().train
    drawn = [labelled_subset(split, 100, Streams(0, 0), draw) for draw in range(3)]
    assert torch.equal(drawn[0], labelled_subset(split, 100, Streams(0, 0)))
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert len(set(drawn[one].tolist()) & set(drawn[two].tolist())) < 40
    assert split.labels[drawn[2]].bincount().tolist() == [10] * 10


def test_digits_that_do_not_train_join_the_test_set() -> None:
    images = load.load(tiny_study("mae", more=["data.train_images=512"]).cells[0].config, "")
    assert (len(images.train), len(images.test)) == (512, 1285)
    whole = torch.cat([images.train.images, images.test.images]).flatten(1)  # type: ignore[union-attr]
    other = torch.cat([digits().train.images, digits().test.images]).flatten(1)  # type: ignore[union-attr]
    assert sorted(map(bytes, whole.numpy())) == sorted(map(bytes, other.numpy()))
    with pytest.raises(DataError, match=r"data\.train_images=1790 of 1,797"):
        load.load(tiny_study("mae", more=["data.train_images=1790"]).cells[0].config, "")


def test_sizes_are_set_only_where_a_data_set_leaves_them_open() -> None:
    assert DataConfig(name="fashion-mnist", mean=(0.3,), std=(0.3,), test_images=10)
    for name, size in (("digits", "test_images"), ("cifar10", "train_images")):
        with pytest.raises(UsageError, match=rf"data.{size}=8 is for.*fashion-mnist.*'{name}'"):
            DataConfig(name=name, mean=(0.3,), std=(0.3,), **{size: 8})  # type: ignore[arg-type]


def test_every_image_comes_once_an_epoch_in_another_order_each_time() -> None:
    images = digits()
    config = feed_config(tiny_study("mae").cells[0].config.data, AugmentConfig())
    feed = make_feed(images.train, torch.arange(1024), config)
    first = torch.cat([s.ids for s in feed.epoch(0)])
    second = torch.cat([s.ids for s in feed.epoch(1)])
    assert sorted(first.tolist()) == list(range(1024))
    assert not torch.equal(first, second)
    resumed = torch.cat([s.ids for s in feed.epoch(1, first=4)])
    assert torch.equal(resumed, second[400:])


def test_crops_cover_the_asked_share_and_flip_as_often_as_asked() -> None:
    augment = AugmentConfig(crop_scale=(0.2, 1.0), flip=0.5)
    boxes = crop_boxes(Streams(0, 0).samples("crop", 0, torch.arange(5000)), augment)
    top, left, height, width, flipped = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()
    area = height * width
    assert area.min() >= 0.2 - 1e-4
    assert abs(area.mean() - torchvision_area(augment)) < 0.03
    ratio = width / height
    assert ratio.min() >= 3 / 4 - 1e-3
    assert ratio.max() <= 4 / 3 + 1e-3
    assert abs(flipped.mean() - 0.5) < 0.03


def torchvision_area(augment: AugmentConfig) -> float:
    """Mean share of the image that torchvision's own random resized crop keeps."""
    image = torch.zeros(1, 1000, 1000)
    with Streams(0, 0).scoped("test"):
        sizes = [
            RandomResizedCrop.get_params(image, list(augment.crop_scale), list(augment.crop_ratio))
            for _ in range(3000)
        ]
    return sum(h * w for _, _, h, w in sizes) / len(sizes) / 1e6


def test_a_crop_cuts_out_exactly_its_box() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8)
    box = torch.tensor([[2 / 8, 4 / 8, 4 / 8, 4 / 8, 0.0]])
    assert torch.allclose(crop(images, box, 4, "bilinear"), images[:, :, 2:6, 4:8], atol=1e-4)
    box[0, 4] = 1
    flipped = images[:, :, 2:6, 4:8].flip(3)
    assert torch.allclose(crop(images, box, 4, "bilinear"), flipped, atol=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                size = (int(rng.integers(20, 40)), int(rng.integers(20, 40)), 3)
                picture = Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8))
                picture.save(tmp_path / part / name / f"{i}.png")
    return str(tmp_path)


AUGMENT = AugmentConfig(
    crop_scale=(0.2, 1.0),
    flip=0.5,
    color_jitter=0.4,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.5,
)


def test_a_folder_gives_the_same_batches_for_any_number_of_workers(folder: str) -> None:
    config = layers.merged(layers.load_preset("imagenet"))["data"]
    settings = DataConfig(name="folder", mean=tuple(config["mean"]), std=tuple(config["std"]))
    images = image_folder(settings, folder, 16)
    assert images.classes == 2
    batches = []
    for workers in (0, 2):
        request = feed_config(settings, AUGMENT, size=16, batch=4, workers=workers)
        steps = list(make_feed(images.train, torch.arange(12), request).epoch(3))
        batches.append([(s.ids, s.images, s.labels, s.boxes) for s in steps])
    assert len(batches[0]) == 3
    for one, two in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_small_folder_is_decoded_once_and_gives_the_same_batches(
    folder: str, workers: int
) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    images = image_folder(settings, folder, 16)
    damaged = Path(folder) / "train" / "cat" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    batches, kept = [], images.kept()
    assert isinstance(kept.train, FileSplit)
    for split in (images.train, kept.train):
        request = feed_config(settings, AUGMENT, size=16, batch=4, workers=workers)
        feed = make_feed(split, torch.arange(12), request)
        for epoch in (0, 1):
            batches.append([(s.ids, s.images, s.labels, s.boxes) for s in feed.epoch(epoch)])
    for before, after in zip(batches[:2], batches[2:], strict=True):
        for one, two in zip(before, after, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert kept.train.unreadable == images.train.unreadable == {2}
    for path in Path(folder).rglob("*.png"):
        path.unlink()
    assert [kept.train.open_any(i)[1] for i in range(12)] == [i != 2 for i in range(12)]
    with pytest.raises(DataError, match="cannot read image"):
        kept.test.open_any(0)  # nobody had opened it


def test_a_folder_that_is_not_small_is_read_anew(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    images = image_folder(settings, folder, 16)
    opened = [header(str(path)) for path in Path(folder).rglob("*.png")]
    needed = sum(3 * width * height for width, height in opened)
    for most in (needed, needed - 1):
        monkeypatch.setattr("bench.data.images.limit", partial(int, most))
        assert (images.kept() is images) == (most < needed)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_picture_is_resized_as_pillow_does_it(mode: str) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    picture = coarse.resize((300, 200), Image.Resampling.BICUBIC)
    augment = AugmentConfig(crop_scale=(0.2, 1.0), flip=0.5, interpolation=mode)
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    request = feed_config(settings, augment, size=64)
    for epoch in range(8):
        with request.streams.scoped("test", epoch):
            image, (top, left, high, wide, flipped) = augmented(picture, request)
        box = (left * 300, top * 200, (left + wide) * 300, (top + high) * 200)
        cut = picture.crop(tuple(round(float(v)) for v in box))
        expected = np.asarray(cut.resize((64, 64), Image.Resampling[mode.upper()])).astype(int)
        found = image.flip(-1) if flipped else image
        assert found.dtype == torch.uint8
        assert abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_of_no_bits_is_black_whatever_pillow_thinks_of_it(mode: str) -> None:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5).convert(mode)
    for bits in (0, -1):
        assert not np.asarray(posterize(picture, bits)).any()
    assert np.array_equal(np.asarray(posterize(picture, 2)), np.asarray(picture) & 0b11000000)
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    request = feed_config(settings, AugmentConfig(auto_augment="rand-m10-inc1-n9"), size=8)
    for index in range(8):
        with request.streams.scoped("test", index):
            augmented(picture.convert("RGB"), request)


def test_a_batch_of_pictures_is_normalised(folder: str) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.25,) * 3)
    images = image_folder(settings, folder, 16)
    plain, erasing = AugmentConfig(), AugmentConfig(random_erasing=1e-9)
    for augment in (plain, erasing):
        request = feed_config(settings, augment, size=16, batch=4)
        step = next(make_feed(images.train, torch.arange(4), request).epoch(0))
        assert step.images.dtype == torch.float32
        assert -2 <= step.images.min() < -1 < 1 < step.images.max() <= 2


def test_a_folder_in_another_layout_is_named(tmp_path: Path) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(DataError, match="ImageNet's layout"):
        image_folder(settings, str(tmp_path), 16)


def test_a_model_of_other_channels_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.channels=1"):
        tiny_study("mae", more=["model.channels=3"])


def test_a_process_without_an_image_of_a_batch_gets_an_empty_one(folder: str) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    images = image_folder(settings, folder, 16)
    request = feed_config(settings, AUGMENT, size=16, batch=4)
    none, some = [], [(0, 1), (0, 2)]
    batches = list(Decoder(_Pictures(images.train, request, True), request).start([none, some]))
    assert [b[0].shape for b in batches] == [(0, 3, 16, 16), (2, 3, 16, 16)]
    assert [len(b[2]) for b in batches] == [0, 2]


def test_the_same_workers_decode_every_epoch(folder: str) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    request = feed_config(settings, AUGMENT, size=16, batch=4, workers=2)
    feed = make_feed(image_folder(settings, folder, 16).train, torch.arange(12), request)
    assert isinstance(feed, FileFeed)
    steps = feed.epoch(0)
    begun = [w.pid for w in feed.decoder.loader._iterator._workers]  # before the first step
    assert len(list(steps)) == 3
    assert len(list(feed.epoch(1, first=1))) == 2
    next(iter(feed.epoch(2)))  # an epoch that is not read to its end
    assert len(list(feed.epoch(3))) == 3
    assert [w.pid for w in feed.decoder.loader._iterator._workers] == begun


class Killed:
    def __getitem__(self, item: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Full:
    def __getitem__(self, item: object) -> None:
        raise RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)")


class Unreadable:
    def __getitem__(self, item: object) -> None:
        raise UnreadableError("cannot read image 'cat/1.png': broken")


@pytest.mark.parametrize(
    ("pictures", "kind", "message", "failure"),
    [
        (Killed(), MachineError, "a data worker was killed", "node"),
        (Full(), MachineError, "/dev/shm) is full", "node"),
        (Unreadable(), UnreadableError, "cannot read image 'cat/1.png': broken", "data"),
    ],
)
def test_what_ends_a_worker_is_named_in_one_line(
    pictures: object, kind: type[Exception], message: str, failure: str
) -> None:
    settings = DataConfig(name="folder", mean=(0.5,) * 3, std=(0.5,) * 3)
    request = feed_config(settings, AUGMENT, size=16, batch=4, workers=1)
    with pytest.raises(kind) as caught:
        list(Decoder(pictures, request).start([[(0, 1)]]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert classify(caught.value) == failure


@pytest.mark.parametrize("size", [(120, 90), (200, 100), (90, 120), (32, 32)])
def test_without_a_crop_training_sees_the_shapes_that_tests_see(size: tuple[int, int]) -> None:
    picture = Image.radial_gradient("L").resize(size)
    settings = DataConfig(name="folder", mean=(0.5,), std=(0.5,))
    request = feed_config(settings, AugmentConfig(crop_scale=(1.0, 1.0), flip=1.0), size=32)
    image, box = augmented(picture, request)
    assert torch.equal(image.flip(-1), centred(picture, request)[0])
    assert box.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("sizes", [(28, 32), (128, 96), (100, 96)])
def test_images_in_memory_without_a_crop_are_those_of_the_test(sizes: tuple[int, int]) -> None:
    """Not augmented means as tests see them, resized likewise; a crop is cut on the device."""
    stored, size = sizes
    rows = torch.arange(stored * stored * 3).reshape(3, stored, stored)
    images = torch.stack([(rows * (7 + i)) % 251 for i in range(4)]).to(torch.uint8)
    split = ArraySplit(images, torch.zeros(4, dtype=torch.long))
    data = DataConfig(name="npz", mean=(0.5,) * 3, std=(0.25,) * 3)
    config = feed_config(data, AugmentConfig(), size=size)
    (step,) = make_feed(split, torch.arange(4), config).epoch(0)
    seen = torch.cat([batch for batch, _ in evaluation_batches(split, torch.arange(4), config)])
    assert torch.equal(step.images[step.ids.argsort()], seen)
    cut = replace(config, augment=AugmentConfig(crop_scale=(0.5, 1.0)))
    assert isinstance(make_feed(split, torch.arange(4), cut), ArrayFeed)


def test_nothing_is_cut_of_no_images() -> None:
    """Of several processes one may have none of a last batch."""
    empty = crop(torch.zeros(0, 3, 8, 8), torch.zeros(0, 5), 6, "bilinear")
    assert empty.shape == (0, 3, 6, 6)


@pytest.mark.parametrize("misfit", ["retry", "clamp"])
def test_a_flip_alone_cuts_nothing(misfit: str) -> None:
    """In memory as in files, where no crop is drawn."""
    augment = AugmentConfig(flip=0.5, crop_misfit=misfit)
    boxes = crop_boxes(Streams(0, 0).samples("test crop", 0, torch.arange(32)), augment)
    assert torch.equal(boxes[:, :4], torch.tensor([0.0, 0, 1, 1]).expand(32, 4))
    assert 0 < boxes[:, 4].sum() < 32
