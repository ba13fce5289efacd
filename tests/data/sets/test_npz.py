"""Arrays in one file: the names and forms that are read, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data import load
from bench.data.images import ImageSet
from bench.errors import DataError, UsageError
from bench.launch.slurm.stage import staged
from bench.plan.typed import parse_data
from tests.data.test_gate import config

DRAW = np.random.default_rng(0)
NAMES = {
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "validation": ("train_images", "train_labels", "val_images", "val_labels"),
}


def arrays(names: str = "medmnist", shape: tuple[int, ...] = (12, 12, 3)) -> dict[str, Any]:
    """24 training and 12 test images of three classes."""
    images, labels, tests, answers = NAMES[names]
    return {
        images: DRAW.integers(0, 256, (24, *shape), dtype=np.uint8),
        labels: np.arange(24, dtype=np.uint8)[:, None] % 3,
        tests: DRAW.integers(0, 256, (12, *shape), dtype=np.uint8),
        answers: np.arange(12) % 3,
    }


def seen(place: Path, content: dict[str, Any], *settings: str) -> ImageSet:
    file = place / "images.npz"
    np.savez(file, **content)
    return load.load(config("npz", *settings), parse_data(f"npz:{file}")[1])


@pytest.mark.parametrize("names", NAMES)
def test_images_and_labels_are_those_of_the_file(names: str, tmp_path: Path) -> None:
    content = arrays(names)
    images = seen(tmp_path, content)
    assert images.classes == 3
    for split, (pixels, labels) in zip(
        (images.train, images.test), (NAMES[names][:2], NAMES[names][2:]), strict=True
    ):
        assert np.array_equal(np.asarray(split.open(5)), content[pixels][5])
        assert split.labels.tolist() == content[labels].reshape(-1).tolist()


def test_unlabelled_images_of_the_same_size_pretrain_too(tmp_path: Path) -> None:
    content = arrays()
    more = DRAW.integers(0, 256, (9, 12, 12, 3), dtype=np.uint8)
    images = seen(tmp_path, {**content, "unlabeled_images": more})
    assert (len(images.train), len(images.pretrain)) == (24, 33)
    assert np.array_equal(np.asarray(images.pretrain.open(25)), more[1])
    assert np.array_equal(np.asarray(images.pretrain.open(3)), content["train_images"][3])
    with pytest.raises(DataError, match="the unlabelled split of 'npz' holds no images"):
        seen(tmp_path, {**content, "x_unlabelled": more[:0]})
    with pytest.raises(
        DataError, match=r"images are \(3, 12, 12\), the unlabelled ones \(3, 6, 6\)"
    ):
        _ = seen(tmp_path, {**content, "x_unlabelled": more[:, :6, :6]}).pretrain


def test_the_test_part_tests_where_there_is_a_validation_part_too(tmp_path: Path) -> None:
    more = {"val_images": np.zeros((3, 12, 12, 3), np.uint8), "val_labels": np.arange(3)}
    assert len(seen(tmp_path, {**arrays(), **more}).test) == 12


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1)])
def test_grey_images_have_one_channel(shape: tuple[int, ...], tmp_path: Path) -> None:
    content = arrays(shape=shape)
    grey = ("model.channels=1", "data.mean=[0.5]", "data.std=[0.5]")
    images = seen(tmp_path, content, *grey)
    assert images.train.images.shape == (24, 1, 12, 12)
    assert np.array_equal(images.train.images[3, 0], content["train_images"][3].reshape(12, 12))


def test_a_share_of_each_class_is_held_out_once_and_for_all(tmp_path: Path) -> None:
    whole = {k: v for k, v in arrays().items() if k.startswith("train")}
    images = seen(tmp_path, whole, "data.holdout=0.25")
    assert images.test.labels.bincount().tolist() == [2, 2, 2]
    both = torch.cat([images.train.images, images.test.images]).flatten(1)
    assert len(both.unique(dim=0)) == 24
    again = seen(tmp_path, whole, "data.holdout=0.25")
    assert torch.equal(again.test.images, images.test.images)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_images": np.zeros((24, 12, 12, 3))}, "float64; needed is uint8"),
        ({"train_images": np.zeros((24, 12, 10, 3), np.uint8)}, r"shape \(24, 12, 10, 3\)"),
        ({"train_images": np.zeros((24, 12, 12, 4), np.uint8)}, r"shape \(24, 12, 12, 4\)"),
        ({"train_labels": np.zeros((24, 5), int)}, "Several labels an image"),
        ({"train_labels": np.zeros(23, int)}, "one integer for each of 24 images"),
        ({"train_labels": np.zeros(24)}, "of float64"),
    ],
)
def test_other_arrays_are_refused(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        seen(tmp_path, {**arrays(), **changed})


def test_what_is_missing_or_too_much_is_named(tmp_path: Path) -> None:
    content = arrays()
    with pytest.raises(DataError, match="'pixels'; needed are train_images with train_labels or"):
        seen(tmp_path, {"pixels": content["train_images"]})
    with pytest.raises(DataError, match=r"add data\.holdout=0\.2"):
        seen(tmp_path, {k: v for k, v in content.items() if k.startswith("train")})
    with pytest.raises(DataError, match="would be ignored: there is the test part 'test_images'"):
        seen(tmp_path, content, "data.holdout=0.2")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.npz"
    with pytest.raises(UsageError, match="does not exist"):
        parse_data(f"npz:{file}")
    with pytest.raises(UsageError, match="needs a file: --data npz:FILE"):
        parse_data("npz")
    for content in (b"", b"nothing of NumPy's", b"PK\x03\x04 torn"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load.load(config("npz"), str(file))


def test_a_path_alone_will_do_and_the_file_is_staged_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "images.npz"
    np.savez(file, **arrays())
    assert parse_data(str(file)) == ("npz", str(file))
    copy = staged(file, str(tmp_path / "node"))
    assert copy != file
    assert copy.read_bytes() == file.read_bytes()


def test_short_names_of_hugging_face_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, cache = tmp_path / "saved", tmp_path / "cache"
    saved.mkdir()
    cache.mkdir()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    assert parse_data("hf:saved") == ("hfds/saved", str(cache)), "a folder of another kind"
    (saved / "dataset_dict.json").touch()
    assert parse_data("hf:saved") == ("hfds/saved", str(saved))
    assert parse_data("hf:owner/pets") == ("hfds/owner/pets", str(cache))
    assert parse_data(f"hf:pets:{saved}") == ("hfds/pets", str(saved))
    assert parse_data(f"hf:{saved}") == ("hfds/saved", str(saved))
    with pytest.raises(UsageError, match="needs a name or a folder"):
        parse_data("hf:")
