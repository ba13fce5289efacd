"""One picture from a file or library to RGB bytes, whatever its mode; damaged ones by one error."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from bench.errors import DataError, printable

BYTES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"})
"""Modes of Pillow that hold bytes, and convert to RGB without a choice of scale."""

VIDEO = frozenset({"YCbCr", "LAB", "HSV"})
"""Modes of other colour spaces, which convert likewise."""

SCALES = {"I": 65535.0, "F": 1.0}
"""What counts as white in pictures of 16 (or 32) bits and in those of floats."""

NOT_THE_FILES = frozenset(
    {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN}
)
"""Numbers of errors that say nothing about the picture: the machine or its network is ill."""


class UnreadableError(DataError):
    """A picture cannot be decoded."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in RGB. Values of 16 bits and floats are scaled: white stays white.

    Pillow's own conversion cuts them at 255, so that a 16-bit picture is all white and one of
    floats in [0, 1] all black.

    Raises:
        ValueError: if its mode is unknown, or its values do not lie on the mode's scale.
    """
    if picture.mode in BYTES or picture.mode in VIDEO:
        return picture.convert("RGB")
    white = SCALES.get(picture.mode.partition(";")[0])
    if white is None:
        raise ValueError(f"mode '{picture.mode}' is not known")
    values = np.asarray(picture, dtype=np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise ValueError(f"values of mode '{picture.mode}' do not lie in [0, {white:g}]")
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8)).convert("RGB")


def open_file(path: str) -> Image.Image:
    """A picture file, read whole."""
    with open(path, "rb") as file, Image.open(file) as picture:
        picture.load()
        return picture


def header(path: str) -> tuple[int, int]:
    """Width and height that a picture file states; its mode must be known."""
    with open(path, "rb") as file, Image.open(file) as picture:
        check_mode(picture.mode)
        return picture.size


def check_mode(mode: str) -> None:
    """Refuses a mode of Pillow that is not known here.

    Raises:
        ValueError: naming it.
    """
    if mode not in BYTES | VIDEO and mode.partition(";")[0] not in SCALES:
        raise ValueError(f"mode '{mode}' is not known")


def guarded(read: Callable[[], Any], name: str) -> Any:
    """What ``read`` returns; whatever a damaged picture makes its decoder raise is one error.

    Raises:
        UnreadableError: naming the picture.
        OSError: if the machine is at fault, not the picture.
    """
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with noise raises anything, bombs included
        if getattr(error, "errno", None) in NOT_THE_FILES:
            raise
        reason = printable(str(error) or type(error).__name__)
        raise UnreadableError(f"cannot read image '{printable(name)}': {reason}") from error
