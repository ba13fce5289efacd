"""One gate for every data set: what makes wrong numbers in silence is refused or told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import gate, load
from bench.data.decode import to_rgb
from bench.data.images import ArraySplit, FileSplit, ImageSet
from bench.data.listing import same_images
from bench.errors import DataError
from bench.plan.config import RunConfig
from tests.conftest import tiny_study

MORE = (
    *("data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]", "model.channels=3"),
    *("data.labels=0", "data.train_images=0"),
)


def config(name: str = "folder", *more: str) -> RunConfig:
    return tiny_study("mae", more=[f"data.name={name}", *MORE, *more]).cells[0].config


def paint(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of eight training and four test pictures, all different."""
    for part, count in (("train", 8), ("val", 4)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                seed = 100 * number + i + 1000 * (part == "val")
                paint(tmp_path / part / name / f"{i}.png", seed)
    return tmp_path


def seen(root: Path, name: str = "folder") -> ImageSet:
    return load.load(config(name), str(root))


def test_a_whole_folder_passes_without_a_word(root: Path) -> None:
    images = seen(root)
    assert (len(images.train), len(images.test), images.classes, images.notes()) == (16, 8, 2, [])


Harm = Callable[[Path], object]


def text(path: str, times: int = 1) -> Harm:
    def harm(root: Path) -> None:
        for i in range(times):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path.replace("#", str(i))).write_text("not a picture")

    return harm


def copied(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")


def linked(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").symlink_to(root / "train")


def hard_links(root: Path) -> None:
    os.link(root / "train" / "cat" / "1.png", root / "val" / "cat" / "x.png")


def emptied(part: str, name: str) -> Harm:
    def harm(root: Path) -> None:
        for path in (root / part / name).iterdir():
            path.unlink()

    return harm


def shut(root: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(root / part / "dog")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: shutil.rmtree(r / "val"), "no folder 'val/'"),
        (lambda r: shutil.rmtree(r / "train"), "no folder 'train/'"),
        (lambda r: shutil.rmtree(r / "val" / "dog"), "different class folders: 'dog'"),
        (lambda r: (r / "val" / "emu").mkdir(), "different class folders: 'emu'"),
        (lambda r: (r / "val" / "dog").rename(r / "val" / "Dog"), "different class folders"),
        (shut, "nothing to tell apart"),
        (copied, "copies of training images"),
        (linked, "test images of 'folder' are training images, as 'cat/0.png'"),
        (hard_links, "1 of 9 test images"),
        (emptied("train", "cat"), "no training image of class 'cat'"),
        (lambda r: [emptied("val", n)(r) for n in ("cat", "dog")], "holds no images"),
        (text("train/cat/#.txt", 9), "are left out (9 .txt)"),
        (text("val/cat/#", 5), "(5 no ending)"),
        (text("train/cat/#.png", 8), "no pictures that can be read"),
        (lambda r: [shutil.rmtree(r / "train" / n) for n in ("cat", "dog")], "no class folders"),
    ],
)
def test_what_would_make_wrong_numbers_is_refused(harm: Harm, message: str, root: Path) -> None:
    harm(root)
    with pytest.raises(DataError) as caught:
        seen(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torch/image_folder", "torch/folder"])
def test_timms_folders_do_not_test_on_training_images(name: str, root: Path) -> None:
    assert len(seen(root, name).test) == 8
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match="no folder 'val/'"):
        seen(root, name)


def test_what_file_managers_leave_counts_as_nothing(root: Path) -> None:
    images = seen(root)
    for place in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", "cat/__MACOSX"):
        (root / "train" / place).mkdir()
        paint(root / "train" / place / "0-checkpoint.png", 7)
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (root / "train" / "cat" / name).write_bytes(b"x")
    again = seen(root)
    assert (again.train.labels.tolist(), again.classes) == (images.train.labels.tolist(), 2)
    assert (again.notes(), again.fingerprint()) == ([], images.fingerprint())


def test_jpeg_by_other_names_and_what_is_left_out(root: Path) -> None:
    for ending in ("jfif", "JPE", "JPEG", "Png"):
        made = root / "train" / "cat" / f"x.{ending}"
        paint(made.with_suffix(".jpg" if ending != "Png" else ".png"), len(ending) + ord(ending[0]))
        made.with_suffix(".jpg" if ending != "Png" else ".png").rename(made)
    (root / "val" / "dog" / "labels.csv").write_text("a,b")
    images = seen(root)
    assert len(images.train) == 20
    assert images.notes() == ["1 test file(s) left out: 1 .csv"]
    assert all(images.train.open_any(i)[1] for i in range(20))


def test_an_empty_test_class_keeps_the_numbers_of_the_others(root: Path) -> None:
    emptied("val", "cat")(root)
    images = seen(root)
    assert set(images.test.labels.tolist()) == {1}
    assert images.notes() == ["1 class(es) without a test image: cat"]


def test_names_that_are_no_utf_8_and_loops_of_links_do_no_harm(root: Path) -> None:
    odd = os.fsencode(root / "train" / "cat") + b"/\xff\x1b[2J.png"
    os.rename(os.fsencode(root / "train" / "cat" / "0.png"), odd)
    (root / "train" / "cat" / "loop").symlink_to(root / "train" / "cat")
    images = seen(root)
    assert len(images.train) == 16
    assert images.fingerprint()
    with open(odd, "wb") as file:
        file.write(b"broken")
    bad = next(i for i, p in enumerate(images.train.paths) if "\x1b" in p)
    images.train.note_unreadable(torch.tensor([bad]))
    (note,) = images.notes()
    assert note == r"1 unreadable training image(s) replaced: cat/\udcff\x1b[2J.png"


def test_a_folder_of_the_same_names_and_other_pixels_is_another_data_set(root: Path) -> None:
    one = seen(root).fingerprint()
    path = root / "train" / "dog" / "5.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # of the same size
    path.write_bytes(data)
    other = seen(root).fingerprint()
    assert one.split(".")[0] == other.split(".")[0]
    assert not same_images(one, other)
    older = "-".join(part.partition(".")[0] for part in one.split("-"))
    assert same_images(older, one)
    assert same_images(one, one)


GREYS = {
    "I;16": (np.uint16, [0, 257, 32896, 65535]),
    "I": (np.int32, [0, 257, 32896, 65535]),
    "F": (np.float32, [0, 1 / 255, 128 / 255, 1]),
}


@pytest.mark.parametrize("mode", GREYS)
def test_pictures_of_more_bits_are_scaled(mode: str) -> None:
    kind, values = GREYS[mode]
    picture = Image.fromarray(np.array([values], dtype=kind))
    assert picture.mode == mode
    assert np.asarray(to_rgb(picture))[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


@pytest.mark.parametrize("value", [2.0, -1.0, float("nan"), float("inf")])
def test_floats_that_lie_on_no_scale_are_unreadable(value: float) -> None:
    with pytest.raises(ValueError, match=r"do not lie in \[0, 1\]"):
        to_rgb(Image.fromarray(np.array([[0.5, value]], dtype=np.float32)))


def arrays(labels: list[int], test: list[int], classes: int, channels: int = 3) -> ImageSet:
    rng = np.random.default_rng(0)
    made = [
        ArraySplit(
            torch.from_numpy(rng.integers(0, 256, (len(k), channels, 4, 4), dtype=np.uint8)),
            torch.tensor(k),
        )
        for k in (labels, test)
    ]
    return ImageSet(made[0], made[1], classes)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (arrays([0, 1, 2], [0, 1], 2), "labels from 0 to 2, beyond its 2 classes"),
        (arrays([0, 1, -1], [0, 1], 2), "labels from -1 to 1"),
        (arrays([0, 1], [0, 2], 2), "the test split of 'x' has labels from 0 to 2"),
        (arrays([0, 0], [0, 0], 1), "nothing to tell apart"),
        (arrays([0, 1], [0, 1], 2, channels=1), "1 channels, the model 3. Set model.channels=1"),
        (arrays([0, 0], [0, 1], 2), "no training image of class '1'"),
        (arrays([0, 1], [], 2), "the test split of 'x' holds no images"),
        (arrays([], [0], 2), "the training split of 'x' holds no images"),
    ],
)
def test_images_in_memory_pass_the_same_gate(images: ImageSet, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        gate.check(images, config("x"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.labels=1"], "cannot be shared by 2 classes alike; 2 can"),
        (["data.labels=5"], "cannot be shared by 2 classes alike; 4 can"),
        (["data.labels=14"], "needs 7 images of every class; the smallest has 6: at most 12"),
        (["data.labels=10", "probe.batch_size=9"], "Set probe.batch_size=10"),
        (["probe.batch_size=11"], "leaves one of 12 images"),
        (["probe.batch_size=1"], "which its batch norm cannot take"),
    ],
)
def test_labels_that_cannot_be_had_are_refused(more: list[str], message: str) -> None:
    labels = torch.tensor([0, 1] * 6)
    gate.check_budget(labels, config("x", "probe.batch_size=6"))
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        gate.check_budget(labels, config("x", *more))


def test_too_many_replaced_images_end_a_run(root: Path) -> None:
    split = seen(root).train
    assert isinstance(split, FileSplit)
    split.note_unreadable(torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="4 of 16 images cannot be read, more than 5%"):
        split.note_unreadable(torch.tensor([3]))


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.parametrize(
    "harm",
    [
        bomb,
        lambda p: p.write_bytes(p.read_bytes()[:60]),
        lambda p: p.write_bytes(p.read_bytes().replace(b"IHDR", b"IHDX")),
        lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 50),
        lambda p: p.write_bytes(b"GIF89a" + bytes(30)),
        lambda p: p.write_bytes(b"II*\x00\x08\x00\x00\x00\xff\xff"),
        lambda p: p.write_bytes(b"BM" + b"\xff" * 60),
        lambda p: p.write_bytes(b"RIFF\xff\xff\xff\xffWEBPVP8 "),
        lambda p: p.write_bytes(b"\xff\xd8\xff\xe0" + b"\x00" * 4),
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b""),
    ],
)
def test_a_damaged_picture_is_replaced_by_the_next(harm: Harm, root: Path) -> None:
    images = seen(root)
    harm(root / "train" / "cat" / "0.png")
    _, readable = images.train.open_any(0)
    assert not readable
    with pytest.raises(DataError, match="cannot read image"):
        images.strict().train.open_any(0)
