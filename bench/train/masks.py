"""The masks of a run's steps, drawn for many images at once where a set is small."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.api import Method
from bench.streams import Streams

TOGETHER = 1 << 14
"""Images up to which an epoch's masks are drawn together: a draw costs calls rather than work."""


@dataclass
class Masks:
    """Masks by epoch and image. An image's mask depends on its own stream alone."""

    method: Method
    streams: Streams
    images: int
    _epoch: int = -1
    _drawn: Tensor = field(default_factory=lambda: torch.empty(0))

    def of(self, epoch: int, ids: Tensor) -> Tensor:
        """True where hidden, [B, N], for images ``ids`` [B] of the training set."""
        if self.images > TOGETHER:
            return self._draw(epoch, ids)
        if epoch != self._epoch:
            everyone = torch.arange(self.images, device=ids.device)
            self._epoch, self._drawn = epoch, self._draw(epoch, everyone)
        return self._drawn[ids]

    def _draw(self, epoch: int, ids: Tensor) -> Tensor:
        return self.method.draw_hidden(self.streams.samples("mask", epoch, ids))
