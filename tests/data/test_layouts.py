"""Folders that are laid out in other ways than ImageNet's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.data import load
from bench.data.images import NO_LABEL, FileSplit, ImageSet
from bench.data.listing import same_images
from bench.errors import DataError
from bench.plan.identity import cell_id, pretrain_id
from bench.plan.study import plain_config
from tests.data.test_gate import config, paint

CLASSES = {"cat": 10, "dog": 5, "emu": 1}


def fill(place: Path, seed: int = 0) -> None:
    """So many pictures of each class."""
    for name, count in CLASSES.items():
        (place / name).mkdir(parents=True)
        for i in range(count):
            seed += 1
            paint(place / name / f"{i}.png", seed)


def seen(root: Path, holdout: float = 0.2) -> ImageSet:
    return load.load(config("folder", f"data.holdout={holdout}"), str(root))


def names(images: ImageSet) -> list[list[str]]:
    splits = (images.train, images.test)
    return [["/".join(Path(p).parts[-2:]) for p in s.paths] for s in splits]  # type: ignore[union-attr]


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_share_of_each_class_is_held_out(inside: str, tmp_path: Path) -> None:
    fill(tmp_path / inside)
    (tmp_path / inside / "cat" / "notes.txt").write_text("")
    images = seen(tmp_path)
    train, test = names(images)
    assert images.test.labels.tolist() == [0, 0, 1]
    assert sorted(train + test) == sorted(
        f"{k}/{i}.png" for k, n in CLASSES.items() for i in range(n)
    )
    assert isinstance(images.test, FileSplit)
    assert [Path(p).parent.name for p in images.test.paths] == ["cat", "cat", "dog"]
    assert test == ["cat/1.png", "cat/2.png", "dog/1.png"]
    assert "1 class(es) without a test image: emu" in images.notes()
    assert "1 training file(s) left out: 1 .txt" in images.notes()
    assert images.fingerprint() != seen(tmp_path, 0.4).fingerprint()


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_a_test_part_by_any_of_its_names_and_a_share_exclude_each_other(
    name: str, tmp_path: Path
) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / name, 100)
    assert len(seen(tmp_path, 0).test) == 16
    with pytest.raises(DataError, match=f"holdout=0.2 would be ignored: .* test part '{name}/'"):
        seen(tmp_path)


@pytest.mark.parametrize(("inside", "missing"), [("", "'train/'"), ("train", "'val/'")])
def test_without_a_test_part_or_a_share_the_remedy_is_named(
    inside: str, missing: str, tmp_path: Path
) -> None:
    fill(tmp_path / inside)
    with pytest.raises(DataError, match=rf"no folder {missing}.* add data\.holdout=0\.2"):
        seen(tmp_path, 0)


def unlabelled(root: Path, name: str = "unlabeled", count: int = 6) -> None:
    """Pictures of no class, half of them in a sub-folder."""
    (root / name / "more").mkdir(parents=True)
    for i in range(count):
        paint(root / name / ("more" if i % 2 else "") / f"{i}.png", 1000 + i)


@pytest.mark.parametrize("inside", ["", "train"])
@pytest.mark.parametrize("name", ["unlabeled", "unlabelled"])
def test_unlabelled_images_pretrain_behind_the_training_images(
    name: str, inside: str, tmp_path: Path
) -> None:
    fill(tmp_path / inside)
    plain = seen(tmp_path)
    unlabelled(tmp_path, name)
    (tmp_path / name / "notes.txt").write_text("")
    images = seen(tmp_path)
    assert names(images) == names(plain)
    assert images.classes == plain.classes == 3
    pretrain = images.pretrain
    assert isinstance(pretrain, FileSplit)
    there = ["0.png", "2.png", "4.png", "1.png", "3.png", "5.png"]
    assert [Path(p).name for p in pretrain.paths[13:]] == there
    assert list(pretrain.paths[:13]) == list(images.train.paths)  # type: ignore[union-attr]
    assert pretrain.labels.tolist() == [*images.train.labels.tolist(), *[NO_LABEL] * 6]
    assert "pre-training on the 13 training images and 6 unlabelled ones" in images.notes()
    assert "1 unlabelled file(s) left out: 1 .txt" in images.notes()
    assert images.fingerprint().startswith(f"{plain.fingerprint()}-")
    assert not same_images(images.fingerprint(), plain.fingerprint())
    assert plain.pretrain is plain.train


def test_pictures_that_pretrain_are_the_same_where_they_are_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    unlabelled(tmp_path)
    images = seen(tmp_path)
    kept = images.kept().pretrain
    for _ in range(2):
        for i in (0, 12, 13, 18):
            assert kept.open(i).tobytes() == images.pretrain.open(i).tobytes()
    assert isinstance(kept, FileSplit)
    assert kept.room is not None
    assert [kept.room.filled[i] for i in (0, 1, 12, 13, 18)] == [1, 0, 1, 1, 1]


def test_a_damaged_unlabelled_picture_gives_way_to_another_and_is_told(tmp_path: Path) -> None:
    fill(tmp_path)
    unlabelled(tmp_path, count=40)
    (tmp_path / "unlabeled" / "0.png").write_bytes(b"no picture")
    images = seen(tmp_path)
    picture, readable = images.pretrain.open_any(13)
    assert (readable, picture.tobytes()) == (False, images.pretrain.open(14).tobytes())
    images.pretrain.note_unreadable(torch.tensor([13]))
    assert "1 unreadable pre-training image(s) replaced: unlabeled/0.png" in images.notes()
    with pytest.raises(DataError, match=r"unlabeled/0\.png"):
        load.load(config("folder", "data.holdout=0.2"), str(tmp_path), strict=True)


def test_an_empty_folder_of_unlabelled_images_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "unlabeled").mkdir()
    (tmp_path / "unlabeled" / "a.npy").touch()
    with pytest.raises(DataError, match=r"unlabeled' holds no images, but 1 other file\(s\)\. Put"):
        seen(tmp_path)


@pytest.mark.parametrize(("copy", "said"), [(shutil.copy, "copies of "), (os.link, "")])
def test_test_images_among_the_unlabelled_are_refused_and_training_images_told(
    copy: Callable[[str, Path], object], said: str, tmp_path: Path
) -> None:
    fill(tmp_path)
    unlabelled(tmp_path)
    train, test = (s.paths for s in (seen(tmp_path, 0.4).train, seen(tmp_path, 0.4).test))  # type: ignore[union-attr]
    for i, path in enumerate(train[:2]):
        copy(path, tmp_path / "unlabeled" / f"train-{i}.png")
    told = "2 of 10 training images are unlabelled ones too: pre-training sees them twice"
    assert told in seen(tmp_path, 0.4).notes()
    for i, path in enumerate(test):
        copy(path, tmp_path / "unlabeled" / f"test-{i}.png")
    with pytest.raises(DataError, match=rf"6 of 6 test .* are {said}unlabelled .* Take them out"):
        seen(tmp_path, 0.4)


@pytest.mark.parametrize("inside", ["", "train"])
def test_of_tar_shards_it_is_said_how_they_are_read(inside: str, tmp_path: Path) -> None:
    for part in ("val/cat", inside):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    (tmp_path / inside / "shard-000.tar").touch()
    with pytest.raises(DataError, match=r"tar shards, which --data tar:DIR reads: DIR/train"):
        seen(tmp_path, 0)


def test_only_a_share_above_nothing_is_part_of_an_id() -> None:
    plain = config()
    shared = replace(plain, data=replace(plain.data, holdout=0.2))
    for identity in (cell_id, pretrain_id):
        assert identity(plain) != identity(shared)
    assert "holdout" not in plain_config(plain)["data"]
    assert plain_config(shared)["data"]["holdout"] == 0.2
