"""Hugging Face data sets that lie on this machine already: read from their cache, never fetched.

Planning looks at the names of columns, splits and classes, at labels, lengths and headers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.data.images import FileSplit, ImageSet
from bench.errors import DataError, printable, shown
from bench.plan.sections import DataConfig
from bench.plan.typed import SAVED

PREFIX = "hfds/"
TEST_SPLITS = ("validation", "valid", "val", "dev", "test")
"""Which split tests: the first of these that there is; labels of a later one are often withheld."""


def hugging_face(config: DataConfig, root: str, size: int) -> ImageSet:
    """``hfds/NAME:DIR``, where DIR is the ``cache_dir`` that the data set was loaded into.

    A folder that ``DatasetDict.save_to_disk`` wrote does as well.
    It needs a split ``train``, another to test, and in both one column of pictures (``image``) and
    one of class numbers (``label``).

    Raises:
        DataError: if it is not there, or is none of images with classes.
    """
    name = config.name
    splits = _open(name, root)
    chosen = ["train", next((s for s in TEST_SPLITS if s in splits), "")]
    if not all(s in splits for s in chosen):
        raise DataError(
            f"'{name}' has the splits {_listed(splits)}; needed are train and one of "
            f"{', '.join(TEST_SPLITS)}."
        )
    train, test = (_split(splits[part], part, name) for part in chosen)
    return ImageSet(train, test, len(train.names))


def _open(name: str, root: str) -> Mapping[str, Any]:
    """All splits by name; bytes of pictures are neither read nor decoded."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"'{name}' is read by the package 'datasets': pip install datasets."
        ) from error
    own = name.removeprefix(PREFIX)
    online, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        found: Mapping[str, Any]
        if (Path(root) / SAVED).is_file():
            found = datasets.load_from_disk(root)
        else:
            found = datasets.load_dataset(own, cache_dir=root)
    except Exception as error:  # whatever the library makes of what it finds in the folder
        text = printable(f"{type(error).__name__}: {error}")[:300]
        raise DataError(
            f"'{name}' cannot be read from '{shown(root, 200)}': {text}. It is not downloaded "
            f"here; once, by hand: datasets.load_dataset('{own}', cache_dir=DIR)."
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = online
    return found


def _split(part: Any, split: str, name: str) -> FileSplit:
    import datasets

    picture = _column(part.features, "image", "Image", name)
    label = _column(part.features, "label", "ClassLabel", name)
    raw = part.cast_column(picture, datasets.Image(decode=False))
    labels = list(raw[label])
    if not all(isinstance(k, int) for k in labels):
        raise DataError(f"the split '{split}' of '{name}' has images without a label.")
    return FileSplit(
        read=partial(_read, raw, picture),
        labels=torch.tensor(labels, dtype=torch.long),
        paths=[f"{split}/{i}" for i in range(len(labels))],
        files=False,
        names=tuple(map(str, part.features[label].names)),
        raw=partial(_bytes, raw, picture),
        lengths=_lengths(raw, picture),
        packed=True,
    )


def _bytes(raw: Any, picture: str, index: int) -> bytes:
    """The picture's file: in the table, or beside it."""
    item = raw[index][picture]
    return item["bytes"] or Path(item["path"]).read_bytes()


def _read(raw: Any, picture: str, index: int) -> Image.Image:
    """The picture, read as far as its header."""
    return Image.open(io.BytesIO(_bytes(raw, picture, index)))


def _column(features: Mapping[str, Any], usual: str, kind: str, name: str) -> str:
    """The column of a kind: the usual one, or the only one."""
    found = [key for key, feature in features.items() if type(feature).__name__ == kind]
    if usual in found:
        return usual
    if len(found) != 1:
        raise DataError(
            f"'{name}' has {len(found)} columns of the kind {kind}, of {_listed(features)}; "
            f"needed is one, or one called '{usual}'."
        )
    return found[0]


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{shown(n)}'" for n in list(names)[:10]) or "none"


def _lengths(raw: Any, picture: str) -> Sequence[int]:
    """Bytes of each picture, told by the offsets of the table (0: it lies beside it)."""
    import pyarrow.compute

    chunks = raw.data.column(picture).chunks
    found = [pyarrow.compute.binary_length(c.field("bytes")).to_pylist() for c in chunks]
    return [length or 0 for part in found for length in part]
