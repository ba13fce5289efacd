"""Folders that are laid out in other ways than ImageNet's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import load
from bench.data.images import FileSplit, ImageSet
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


@pytest.mark.parametrize("inside", ["", "train"])
def test_tar_shards_are_refused_with_what_is_read(inside: str, tmp_path: Path) -> None:
    for part in ("val/cat", inside):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    (tmp_path / inside / "shard-000.tar").touch()
    with pytest.raises(DataError, match=r"Tar shards are not read.* Unpack .*hfds/NAME:DIR"):
        seen(tmp_path, 0)


def test_only_a_share_above_nothing_is_part_of_an_id() -> None:
    plain = config()
    shared = replace(plain, data=replace(plain.data, holdout=0.2))
    for identity in (cell_id, pretrain_id):
        assert identity(plain) != identity(shared)
    assert "holdout" not in plain_config(plain)["data"]
    assert plain_config(shared)["data"]["holdout"] == 0.2
