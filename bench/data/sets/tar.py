"""Tar shards, as webdataset lays them out: ``tar:DIR``."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from bench.data.folders import TEST, UNLABELLED
from bench.data.holdout import ADVICE, check_share, held_out
from bench.data.images import NO_LABEL, FileSplit, ImageSet
from bench.data.shards import Item, open_shard
from bench.errors import DataError, shown
from bench.plan.sections import DataConfig

TRAIN = ("train", "training")
COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4)|tgz|tbz2|txz)$")
"""What follows the name of a shard that must be read from its beginning."""

NO_CLS = "without a .cls"
"""What an image without a class number is counted as."""


def tar(config: DataConfig, root: str, size: int) -> ImageSet:
    """``train*.tar`` and ``val*.tar`` (or ``validation``, ``test``), or folders of these names.

    Members are ``KEY.jpg`` (or ``.png``, ...) and ``KEY.cls``, a class number; others are passed
    over. Images follow in the order of the shards' names and, inside, of the shard. Those of
    ``unlabeled*.tar`` pre-train together with the others. Without a test part, ``data.holdout``
    takes one from the training shards, or from all.

    Raises:
        DataError: for shards that are damaged or compressed, or parts that are missing.
    """
    shards = _parts(root)
    train, test, more = (_first(shards, names) for names in (TRAIN, TEST, UNLABELLED))
    check_share(config.holdout, next((n for n in TEST if n in shards), ""))
    if config.holdout:
        train = train or shards.get("", [])
    if not train or not (test or config.holdout):
        raise _another_layout(root, shards)
    items, left_out = _labelled(train)
    if config.holdout:
        chosen = held_out(torch.tensor([item.label for item in items]), config.holdout)
        sides = [
            [i for i, out in zip(items, chosen, strict=True) if out is s] for s in (False, True)
        ]
        parts = _split(sides[0], left_out), _split(sides[1], {})
    else:
        parts = _split(items, left_out), _split(*_labelled(test))
    classes = max((int(part.labels.max()) + 1 for part in parts if len(part)), default=0)
    return ImageSet(*parts, classes, unlabelled=_unlabelled(more) if more else None)


def _parts(root: str) -> dict[str, list[Path]]:
    """Shards by the part that their folder's or their own name tells; the others under no name."""
    known, found = (*TRAIN, *TEST, *UNLABELLED), dict[str, list[Path]]()
    for folder in (Path(root), *(Path(root) / name for name in known)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if COMPRESSED.search(path.name):
                raise DataError(
                    f"'{shown(path, 200)}' is compressed: its images cannot be taken in any order. "
                    "Unpack it to a plain .tar (as by gunzip); pictures hardly shrink anyhow."
                )
            if path.suffix == ".tar":
                words = [folder.name] if folder != Path(root) else _words(path.stem)
                part = next((word for word in words if word in known), "")
                found.setdefault(part, []).append(path)
    return found


def _words(stem: str) -> list[str]:
    return re.split(r"[^a-z]+", stem.lower())


def _first(shards: Mapping[str, list[Path]], names: Sequence[str]) -> list[Path]:
    return next((shards[name] for name in names if name in shards), [])


def _all(shards: Sequence[Path]) -> tuple[list[Item], dict[str, int]]:
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    for path in shards:
        shard = open_shard(path)
        items += shard.items
        left_out.update(shard.left_out)
    return items, left_out


def _unlabelled(shards: Sequence[Path]) -> FileSplit:
    """All images, without the labels that some may have."""
    items, left_out = _all(shards)
    return _split([item._replace(label=None) for item in items], left_out)


def _labelled(shards: Sequence[Path]) -> tuple[list[Item], dict[str, int]]:
    """Images with a label; the others are counted among what is left out.

    Raises:
        DataError: if there are images and no label.
    """
    everything, left_out = _all(shards)
    items = [item for item in everything if item.label is not None]
    if everything and not items:
        raise DataError(
            f"no image of '{shown(shards[0], 200)}' has a class number, as KEY.cls beside KEY.jpg "
            "would be. Images without one belong into unlabeled*.tar."
        )
    if len(items) < len(everything):
        left_out[NO_CLS] = len(everything) - len(items)
    return items, left_out


def _split(items: Sequence[Item], left_out: Mapping[str, int]) -> FileSplit:
    labels = [NO_LABEL if item.label is None else item.label for item in items]
    return FileSplit(
        read=partial(_read, items),
        labels=torch.tensor(labels, dtype=torch.long),
        paths=[f"{Path(item.shard).name}/{item.name.removeprefix('./')}" for item in items],
        files=False,
        raw=partial(_bytes, items),
        lengths=[item.size for item in items],
        packed=True,
        left_out=left_out,
    )


def _bytes(items: Sequence[Item], index: int) -> bytes:
    return items[index].read()


def _read(items: Sequence[Item], index: int) -> Image.Image:
    """The picture, read as far as its header."""
    return Image.open(io.BytesIO(items[index].read()))


def _another_layout(root: str, shards: Mapping[str, list[Path]]) -> DataError:
    there = sorted(path.name for found in shards.values() for path in found)
    listed = ", ".join(f"'{shown(name)}'" for name in there[:3]) or "no shard"
    advice = "" if any(name in shards for name in TEST) else f" {ADVICE}"
    return DataError(
        f"'{shown(root, 200)}' holds {listed}{' ...' * (len(there) > 3)}; expected are train*.tar "
        f"and val*.tar (or validation*, test*), or folders of these names.{advice}"
    )
