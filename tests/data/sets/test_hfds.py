"""Hugging Face data sets pass the gate by names, lengths and headers; nothing is downloaded.

The package 'datasets' is optional: a stand-in here offers the calls that are made of it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import load
from bench.data.images import FileSplit, ImageSet
from bench.errors import DataError
from tests.data.test_gate import config

ClassLabel = type("ClassLabel", (SimpleNamespace,), {})
Picture = type("Image", (SimpleNamespace,), {})
Value = type("Value", (SimpleNamespace,), {})


class Table:
    """A split: its features, and rows of columns."""

    def __init__(self, labels: list[Any], seed: int = 0, names: str = "cat dog") -> None:
        self.features: dict[str, Any] = {
            "image": Picture(),
            "label": ClassLabel(names=names.split()),
        }
        self.pictures = [png(1000 * seed + i) for i in range(len(labels))]
        self.labels = labels

    def rename(self, old: str, new: str) -> Table:
        self.features = {new if k == old else k: f for k, f in self.features.items()}
        return self

    def add(self, name: str, feature: Any) -> Table:
        self.features[name] = feature
        return self

    def cast_column(self, name: str, feature: Any) -> Table:
        assert isinstance(self.features[name], Picture)
        assert feature.decode is False
        return self

    @property
    def data(self) -> Any:
        chunk = SimpleNamespace(field=lambda name: {"bytes": self.pictures}[name])
        return SimpleNamespace(column=lambda name: SimpleNamespace(chunks=[chunk]))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            assert isinstance(self.features[key], ClassLabel)
            return self.labels
        picture = next(k for k, f in self.features.items() if isinstance(f, Picture))
        return {picture: {"bytes": self.pictures[key], "path": None}}


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


LABELS = [0, 1] * 4
Tables = dict[str, Any]


def good() -> Tables:
    return {"train": Table(LABELS), "test": Table([0, 1], 1)}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    """The splits that the stand-in finds in the folder."""
    tables = good()
    made: Any = ModuleType("datasets")

    def load_dataset(name: str, cache_dir: str) -> Tables:
        assert made.config.HF_HUB_OFFLINE is True, "the network would be asked"
        assert (name, cache_dir) == ("me/pets", "/data")
        if not tables:
            raise FileNotFoundError("not cached\x1b[2J")
        return tables

    made.__dict__.update(
        load_dataset=load_dataset,
        Image=Picture,
        config=SimpleNamespace(HF_HUB_OFFLINE=False),
        logging=SimpleNamespace(set_verbosity_error=lambda: None),
        disable_progress_bars=lambda: None,
    )
    compute = ModuleType("pyarrow.compute")
    compute.__dict__["binary_length"] = lambda items: SimpleNamespace(
        to_pylist=lambda: [*map(len, items)]
    )
    arrow = ModuleType("pyarrow")
    arrow.__dict__["compute"] = compute
    for name, module in (("datasets", made), ("pyarrow", arrow), ("pyarrow.compute", compute)):
        monkeypatch.setitem(sys.modules, name, module)
    yield tables
    assert made.config.HF_HUB_OFFLINE is False


def seen() -> ImageSet:
    return load.load(config("hfds/me/pets"), "/data")


def test_a_whole_one_passes_and_only_what_is_asked_for_is_decoded(
    there: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "convert", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    images = seen()
    train = images.train
    assert isinstance(train, FileSplit)
    assert (train.names, images.classes, images.notes()) == (("cat", "dog"), 2, [])
    assert (train.labels.tolist(), images.test.labels.tolist()) == (LABELS, [0, 1])
    assert train.sizes == [len(p) for p in there["train"].pictures]
    monkeypatch.undo()
    assert np.asarray(train.open(3)).tolist() == _pixels(there["train"].pictures[3])


def _pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data))).tolist()


def test_few_enough_are_decoded_once_and_kept(there: Tables) -> None:
    kept = seen().kept().train
    assert isinstance(kept, FileSplit)
    first = kept.open(2).tobytes()
    assert kept.room is not None
    assert list(kept.room.filled[:4]) == [0, 0, 1, 0]
    assert kept.open(2).tobytes() == first


def test_a_validation_split_goes_before_a_test_split_and_columns_may_have_other_names(
    there: Tables,
) -> None:
    there["test"].labels = [-1, -1]  # withheld
    there["validation"] = Table([1], 2)
    for table in there.values():
        table.rename("image", "img").rename("label", "fine").add("text", Value())
    assert seen().test.labels.tolist() == [1]


Harm = Callable[[Tables], object]


def broken(part: str, count: int) -> Harm:
    def harm(tables: Tables) -> None:
        tables[part].pictures[:count] = [b"no picture"] * count

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda t: t.clear(), r"FileNotFoundError: not cached\x1b[2J. It is not downloaded"),
        (lambda t: t.pop("test"), "has the splits 'train'; needed are train and one of"),
        (lambda t: t.pop("train"), "has the splits 'test'; needed are train"),
        (lambda t: t["train"].features.pop("label"), "has 0 columns of the kind ClassLabel"),
        (lambda t: t["train"].rename("image", "a").add("b", Picture()), "has 2 columns of the"),
        (lambda t: t["test"].features.update(label=Value()), "0 columns of the kind ClassLabel"),
        (lambda t: t.update(test=Table([0, 1], 1, "dog cat")), "hold different class folders"),
        (lambda t: t.update(test=Table([0, 1], 1, "cat dog emu")), "class folders: 'emu'"),
        (lambda t: t.update(test=t["train"]), "8 of 8 test images of 'hfds/me/pets' are copies"),
        (lambda t: t.update(test=Table([0, -1], 1)), "has labels from -1 to 0"),
        (lambda t: t.update(test=Table([0, None], 1)), "has images without a label"),
        (lambda t: t.update(test=Table([], 1)), "the test split of 'hfds/me/pets' holds no"),
        (lambda t: t.update(train=Table([0] * 8)), "no training image of class 'dog'"),
        (lambda t: t.update({k: Table([0] * 8, i, "a") for i, k in enumerate(t)}), "1 class;"),
        (broken("train", 5), "5 of 8 training files of 'hfds/me/pets' looked into are no pict"),
    ],
)
def test_what_would_make_wrong_numbers_is_refused(harm: Harm, message: str, there: Tables) -> None:
    harm(there)
    with pytest.raises(DataError) as caught:
        seen()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_picture_is_replaced_and_named(there: Tables) -> None:
    there["train"].pictures[2] = there["train"].pictures[2][:200]
    train = seen().train
    assert isinstance(train, FileSplit)
    with pytest.raises(DataError, match="cannot read image 'train/2'"):
        train.open(2)
    assert train.open_any(2)[1] is False


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="by the package 'datasets': pip install datasets"):
        seen()
