"""Which test images a run got right: one bit an image, beside its record.

``correct.json`` in a cell's folder: endpoint to a list, an entry a draw of labels (most often one):
``<number of images>:<bits in base64>``, the first image in the highest bit of the first byte.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.errors import StoreError
from bench.store.files import write_json
from bench.store.folder import RunFolder
from bench.store.shapes import damaged, fits, read_state

Flags = npt.NDArray[np.bool_]

FILE = "correct.json"


def pack(correct: Flags) -> str:
    """Bits of one endpoint as text."""
    bits = np.packbits(np.asarray(correct, dtype=np.bool_))
    return f"{len(correct)}:{base64.b64encode(bits.tobytes()).decode()}"


def unpack(text: str) -> Flags:
    """The flags that :func:`pack` wrote.

    Raises:
        StoreError: if the text is torn.
    """
    count, _, encoded = text.partition(":")
    try:
        bits = np.frombuffer(base64.b64decode(encoded, validate=True), dtype=np.uint8)
        if bits.size != -(-int(count) // 8):
            raise ValueError(f"{bits.size} bytes for {count} images")
        return np.unpackbits(bits, count=int(count)).astype(np.bool_)
    except (ValueError, binascii.Error) as error:
        raise StoreError(f"'{FILE}' holds bits that cannot be read: {error}.") from error


def write_correct(folder: RunFolder, packed: Mapping[str, Sequence[str]]) -> None:
    """Leaves the bits of each endpoint, draw by draw, beside a cell's record."""
    write_json(folder.path / FILE, {name: list(draws) for name, draws in packed.items() if draws})


def read_correct(folder: RunFolder) -> dict[str, Flags]:
    """The bits of each endpoint [draws, images]; nothing where a run left none.

    Raises:
        DamagedError: if they cannot be read.
    """
    path = folder.path / FILE
    found = read_state(path) or {}
    if not fits(found, dict[str, list[str]]):
        raise damaged(path, "it holds no bits")
    try:
        return {name: np.stack([unpack(text) for text in draws]) for name, draws in found.items()}
    except (StoreError, ValueError) as error:
        raise damaged(path, str(error)) from error
