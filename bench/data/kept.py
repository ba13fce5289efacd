"""Decoded pictures kept as bytes that a process shares with the workers it forks."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from itertools import accumulate

from PIL import Image

from bench.machine import memory

MOST, SHARE = 1 << 30, 16
"""Bytes that the pictures of a data set may take to be kept, and that share of the memory."""

Size = tuple[int, int]
"""Width and height."""


def limit() -> int:
    """Bytes of pictures that this machine keeps."""
    return min(MOST, memory.physical() // SHARE)


class Room:
    """Room for RGB pictures of known sizes, filled when each is first read.

    Whoever decodes a picture first, a worker or the process that forked it, keeps it for all: the
    memory is shared, and taken page by page as it is written.
    """

    def __init__(self, sizes: Iterable[Size]) -> None:
        self.sizes = list(sizes)
        self.ends = list(accumulate(3 * width * height for width, height in self.sizes))
        self.pixels = mmap.mmap(-1, max(1, self.ends[-1]))
        self.filled = mmap.mmap(-1, len(self.sizes))

    def picture(self, index: int, read: Callable[[], Image.Image]) -> Image.Image:
        """The picture that is kept; else what ``read`` gives, kept if it has the size foretold."""
        width, height = self.sizes[index]
        place = slice(self.ends[index] - 3 * width * height, self.ends[index])
        if self.filled[index]:
            return Image.frombytes("RGB", (width, height), self.pixels[place])
        picture = read()
        if picture.size == (width, height):
            self.pixels[place] = picture.tobytes()
            self.filled[index] = 1  # only now: a reader finds it whole, or not at all
        return picture
