"""Tar shards: their images in any order, as those of a folder; what is refused and left out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import decode, load, shards
from bench.data.images import NO_LABEL, FileSplit, ImageSet
from bench.errors import DataError
from bench.machine import cache
from bench.plan.typed import parse_data
from bench.store.folder import RunFolder
from bench.streams import Streams
from bench.train.loop import Session
from bench.train.method import build_method
from bench.train.monitor import Monitor
from bench.train.pretrain import Pretraining
from tests.data.test_gate import config, paint

Members = Sequence[tuple[str, bytes]]


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(first: int, count: int, classes: int = 2) -> list[tuple[str, bytes]]:
    """So many pictures, no two alike, each behind its class."""
    numbers = range(first, first + count)
    pairs = (((f"{i}.cls", b"%d\n" % (i % classes)), (f"{i}.png", png(i))) for i in numbers)
    return [member for pair in pairs for member in pair]


def seen(root: Path, *settings: str) -> ImageSet:
    return load.load(config("tar", *settings), parse_data(f"tar:{root}")[1])


def names(split: Any) -> list[str]:
    return list(split.paths)


LAYOUTS = {
    "by name": ("train-0.tar", "train-1.tar", "val-0.tar", "unlabeled-0.tar"),
    "Hugging Face's": (
        "i1k-train-00.tar",
        "i1k-train-01.tar",
        "i1k-validation-00.tar",
        "unlabelled.tar",
    ),
    "by folder": ("train/0.tar", "train/1.tar", "test/0.tar", "unlabeled/0.tar"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_and_labels_are_those_of_the_shards_in_their_order(
    layout: str, tmp_path: Path
) -> None:
    one, two, test, more = (tmp_path / name for name in LAYOUTS[layout])
    pack(two, samples(50, 4))
    pack(one, [("./", b""), *samples(1, 8), ("1.json", b"{}"), ("._9.png", b"")])
    pack(test, samples(100, 4))
    pack(more, [(f"x/{i}.JPG", png(i)) for i in range(200, 205)] + [("x/200.cls", b"1")])
    images = seen(tmp_path)
    inside = [f"{one.name}/{i}.png" for i in range(1, 9)]
    assert names(images.train) == [*inside, *(f"{two.name}/{i}.png" for i in range(50, 54))]
    assert images.train.labels.tolist() == [1, 0] * 4 + [0, 1] * 2
    assert (images.classes, len(images.test)) == (2, 4)
    assert images.notes() == ["pre-training on the 12 training images and 5 unlabelled ones"]
    assert images.unlabelled is not None
    assert images.unlabelled.labels.tolist() == [NO_LABEL] * 5
    for index, seed in ((0, 1), (9, 51), (14, 202)):
        expected = Image.open(io.BytesIO(png(seed)))
        for _ in range(2):
            assert images.pretrain.open(index).tobytes() == expected.tobytes()
            assert images.kept().pretrain.open(index).tobytes() == expected.tobytes()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_each_kind_of_tar_are_read(form: int, tmp_path: Path) -> None:
    folder = "/".join(["n" * 60] * 3)
    pack(tmp_path / "train.tar", [(f"{folder}/{n}", b) for n, b in samples(0, 12)], form)
    images = seen(tmp_path, "data.holdout=0.2")
    assert (len(images.train), len(images.test)) == (10, 2)
    number = int(Path(names(images.test)[1]).stem)
    assert sorted(images.test.labels.tolist()) == [0, 1]
    expected = Image.open(io.BytesIO(png(number)))
    assert images.test.open(1).tobytes() == expected.tobytes()


def test_shards_of_no_part_are_shared_by_data_holdout(tmp_path: Path) -> None:
    for shard in range(2):
        pack(tmp_path / f"{shard}.tar", samples(10 * shard, 10))
    images = seen(tmp_path, "data.holdout=0.2")
    assert (len(images.train), images.test.labels.tolist().count(0)) == (16, 2)
    assert not set(names(images.train)) & set(names(images.test))
    with pytest.raises(
        DataError, match=r"holds '0\.tar', '1\.tar'; expected .* data\.holdout=0\.2"
    ):
        seen(tmp_path)
    pack(tmp_path / "none" / "train.tar", [])
    with pytest.raises(DataError, match="nothing to tell apart"):
        seen(tmp_path / "none", "data.holdout=0.2")
    pack(tmp_path / "val.tar", samples(50, 4))
    with pytest.raises(DataError, match=r"would be ignored: there is the test part 'val'"):
        seen(tmp_path, "data.holdout=0.2")


def test_shards_and_a_folder_of_the_same_pictures_train_alike(tmp_path: Path) -> None:
    for part, first, count in (("train", 0, 8), ("val", 100, 4)):
        members: list[tuple[str, bytes]] = []
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "f" / part / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "f" / part / name / f"{i}.png"
                paint(path, first + 10 * number + i)
                members += [
                    (f"{number}-{i}.png", path.read_bytes()),
                    (f"{number}-{i}.cls", b"%d" % number),
                ]
        half = 2 * (count + 1)
        pack(tmp_path / "t" / f"{part}-0.tar", members[:half])
        pack(tmp_path / "t" / f"{part}-1.tar", members[half:])
    found = []
    for name, root, workers in (("folder", "f", 0), ("tar", "t", 2)):
        chosen = config(name, "pretrain.augment.crop_scale=[0.3,1]", "pretrain.batch_size=5")
        images = load.load(chosen, str(tmp_path / root)).kept()
        monitor = Monitor(RunFolder(tmp_path / root))
        session = Session(torch.device("cpu"), Streams(0, 0), monitor, workers=workers)
        method: Any = build_method(chosen)
        measured = Pretraining(method.train(), images, chosen, session).run()
        found.append((measured.digests, measured.pretrain_loss, images.train.labels.tolist()))
    assert found[0] == found[1]
    assert set(found[0][0]) == {"order", "crop", "mask"}


def test_what_is_no_sample_is_left_out_and_counted(tmp_path: Path) -> None:
    pack(tmp_path / "val.tar", samples(500, 4))
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(link)
        for name, content in [*samples(0, 60), ("a.png", png(90)), ("b.cls", b"1")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    left = "3 training file(s) left out: 1 no plain file, 1 without a .cls, 1 without an image"
    assert seen(tmp_path).notes() == [left]


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return harm


def with_members(*more: tuple[str, bytes]) -> Callable[[Path], None]:
    return lambda path: pack(path, [*samples(0, 8), *more])


def damaged(content: bytes) -> bytes:
    """With a wrong letter in the fifth header."""
    place = content.index(b"2.cls")
    return content[:place] + b"X" + content[place + 1 :]


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut in a picture": (changed(lambda c: c[: c.index(b"7.png") + 600]), "unexpected end of data"),
    "cut at a member": (changed(lambda c: c[: c.index(b"4.cls")]), "it has been cut"),
    "cut in a header": (changed(lambda c: c[: c.index(b"4.cls") + 100]), "it has been cut"),
    "a damaged header": (changed(damaged), r"at byte \d+ there is neither a file nor its end"),
    "two in one": (changed(lambda c: c + c), "several in one"),
    "no tar": (changed(lambda c: b"not one" * 100), "as a tar"),
    "empty": (changed(lambda c: b""), "as a tar: empty"),
    "gzipped": (
        lambda p: p.rename(f"{p}.gz"),
        r"train\.tar\.gz' is compressed: .* to a plain \.tar",
    ),
    "tgz": (lambda p: p.rename(p.with_suffix(".tgz")), r"train\.tgz' is compressed"),
    "two images": (with_members(("3.jpg", b"")), r"two images of the sample '3', .* '3\.jpg'"),
    "two labels": (with_members(("3.cls", b"1")), "two labels of the sample '3'"),
    "a name": (with_members(("9.cls", b"cat")), r"'9\.cls' holds no class number but 'cat'"),
    "no labels": (
        lambda p: pack(p, samples(0, 8)[1::2]),
        r"no image of '.*train\.tar' has a class number",
    ),
    "most without a label": (
        lambda p: pack(p, [*samples(0, 20)[8:], *samples(0, 4)[1::2]]),
        r"4 of 20 training files of 'tar' are left out \(4 without a \.cls\)",
    ),
    "no images": (lambda p: pack(p, []), "the training split of 'tar' holds no images"),
    "none": (Path.unlink, r"holds 'val\.tar'; expected are train\*\.tar and val\*\.tar"),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_cannot_be_taken_in_any_order_is_refused(harm: str, tmp_path: Path) -> None:
    pack(tmp_path / "val.tar", samples(100, 4))
    pack(tmp_path / "train.tar", samples(0, 8))
    make, said = REFUSED[harm]
    make(tmp_path / "train.tar")
    with pytest.raises(DataError, match=said):
        seen(tmp_path)


def test_headers_are_read_once_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    shard = tmp_path / "0.tar"
    pack(shard, [*samples(0, 3), ("9.cls", b"1")])
    listed, read = [], shards._listed
    monkeypatch.setattr(shards, "_listed", lambda path: listed.append(path) or read(path))
    first = shards.open_shard(shard)
    assert (shards.open_shard(shard), len(listed)) == (first, 1)
    assert (len(first.items), first.left_out) == (3, {"without an image": 1})
    pack(shard, samples(0, 5))
    assert (len(shards.open_shard(shard).items), len(listed)) == (5, 2)
    for kept in (tmp_path / "cache" / "shards").iterdir():
        kept.write_bytes(kept.read_bytes()[:20])
    assert (len(shards.open_shard(shard).items), len(listed)) == (5, 3)


def test_a_shard_that_is_cut_later_makes_its_pictures_unreadable(tmp_path: Path) -> None:
    for part in ("train", "val"):
        pack(tmp_path / f"{part}.tar", samples(0 if part == "train" else 50, 4))
    images = seen(tmp_path)
    assert isinstance(images.train, FileSplit)
    content = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "train.tar").write_bytes(content[: content.index(b"3.png")])
    with pytest.raises(decode.UnreadableError, match=r"train\.tar/3\.png': its shard .* been cut"):
        images.train.open(3)
    assert images.train.open_any(3)[1] is False
