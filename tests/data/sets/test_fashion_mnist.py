from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.sets import fashion_mnist as module
from bench.data.sets.fashion_mnist import fashion_mnist
from bench.errors import DataError
from bench.plan.sections import DataConfig

Array = np.ndarray[Any, Any]


def idx(values: Array) -> bytes:
    """LeCun's format: magic number with the dimensions, sizes, bytes."""
    header = np.array([0x0800 + values.ndim, *values.shape], dtype=">i4")
    return header.tobytes() + values.astype(np.uint8).tobytes()


def write(folder: Path, packed: bool = True) -> dict[str, tuple[Array, Array]]:
    """Four files of 40 and 20 random images; the classes come in blocks, unlike in the original."""
    rng, parts = np.random.default_rng(0), {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 40), ("t10k", 20)):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) * 10 // count
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(values)
            path = folder / (f"{name}-{kind}-ubyte" + ".gz" * packed)
            path.write_bytes(gzip.compress(data) if packed else data)
        parts[name] = images, labels
    return parts


def config(**sizes: int) -> DataConfig:
    return DataConfig(name="fashion-mnist", mean=(0.3,), std=(0.35,), **sizes)


@pytest.mark.parametrize(("inside", "packed"), [("", True), ("FashionMNIST/raw", False)])
def test_a_folder_or_torchvisions_download_is_read(
    tmp_path: Path, inside: str, packed: bool
) -> None:
    parts = write(tmp_path / inside, packed)
    images = fashion_mnist(config(), str(tmp_path), 28)
    for split, name in ((images.train, "train"), (images.test, "t10k")):
        assert torch.equal(split.images[:, 0], torch.from_numpy(parts[name][0]).byte())  # type: ignore[union-attr]
        assert torch.equal(split.labels, torch.from_numpy(parts[name][1]))
    assert images.classes == 10


def test_debians_package_is_found_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEBIAN", tmp_path)
    with pytest.raises(DataError, match=r"no Fashion-MNIST on this machine.*dataset-fashion-mnist"):
        fashion_mnist(config(), "", 28)
    write(tmp_path)
    assert len(fashion_mnist(config(), "", 28).train) == 40


def test_a_part_holds_the_first_images_of_each_class(tmp_path: Path) -> None:
    write(tmp_path)
    images = fashion_mnist(config(train_images=20, test_images=15), str(tmp_path), 28)
    assert images.train.labels.bincount().tolist() == [2] * 10
    assert images.test.labels.bincount().tolist() == [2] * 5 + [1] * 5
    everything = fashion_mnist(config(), str(tmp_path), 28).train
    assert torch.equal(images.train.images[:2], everything.images[:2])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").unlink(), "lacks 't10k-labels-idx1-ubyte'"),
        (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no"), "is no idx file"),
        (
            lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.ones(3)))),
            "holds 20 test images, but 3 labels",
        ),
        (
            lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(
                gzip.compress(idx(np.ones((2, 2))))
            ),
            "magic number 0x802",
        ),
        (
            lambda f: (f / "t10k-images-idx3-ubyte.gz").write_bytes(
                gzip.compress(idx(np.ones((20, 28, 28)))[:-9])
            ),
            "is no idx file of 3 dimensions",
        ),
    ],
)
def test_missing_and_damaged_files_are_told(tmp_path: Path, break_it: Any, message: str) -> None:
    write(tmp_path)
    break_it(tmp_path)
    with pytest.raises(DataError, match=message):
        fashion_mnist(config(), str(tmp_path), 28)


def test_more_images_than_there_are_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Fashion-MNIST in"):
        fashion_mnist(config(), str(tmp_path), 28)
    write(tmp_path)
    with pytest.raises(DataError, match=r"data.test_images=21 asks for more than the 20"):
        fashion_mnist(config(test_images=21), str(tmp_path), 28)
