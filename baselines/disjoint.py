"""Several disjoint masks an image in one step: the masks of DMJD, arXiv 2301.00230. No torch.

Source: mx-mark/DMJD f5ce6ea, models_dmjd.py (``random_masking``), of which this is the masking
alone, for any number of masks; its second branch, its targets and its backbone are not here. As
there, the masked images of a batch are counted, not the images. Its rate is scaled by the images
and by the share of patches that is predicted; here the rate stays the baseline's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from bench.api import Method, Needs, SampleStream
from bench.api.rules import Range, Ruled

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 1 << 21
"""First draw of an image's stream that is taken here."""


@dataclass(frozen=True, kw_only=True)
class DisjointConfig(Ruled, section="disjoint"):
    """How many masks an image has in a step; 1 is the bare method."""

    masks: Annotated[int, Range(1, 16)] = 2  # [dmjd] PRETRAIN.md: two masked views

    @property
    def needs(self) -> Needs:
        """Each image so many times in turn."""
        return Needs(masks=self.masks)


def with_disjoint(method: Method, config: DisjointConfig) -> Method:
    """``method`` itself, which trains on ``config.masks`` masks of each image in a step."""
    if config.masks > 1:
        changed: Any = method
        before = getattr(method, "masks_at", None)
        changed.masks_at = partial(_masks_at, before, config.masks)
    return method


def _masks_at(
    before: Callable[..., Tensor] | None,
    masks: int,
    hidden: Tensor,
    noise: SampleStream | None,
    step: SampleStream | None,
) -> Tensor:
    """Masks [B, N] of images that stand ``masks`` times in turn, the first of each its own."""
    if before is not None:
        hidden = before(hidden, noise, step)
    return hidden if noise is None else disjoint(hidden, noise, masks)


def disjoint(hidden: Tensor, noise: SampleStream, masks: int) -> Tensor:
    """Masks [B, N] that show patches no other mask of their image shows, as far as there are any.

    The first of ``masks`` rows in turn stays; the others show as many patches as it does, one by
    one at random. Where all together would show more than N, the last show some again.
    """
    import torch

    first, patches = hidden[::masks], hidden.shape[1]
    draws = noise.uniform(patches, offset=DRAWS)[::masks]
    rank = (draws.double() + first).argsort(dim=1).argsort(dim=1)  # its own visible ones first
    shown = (~first).sum(1)[:, None, None]
    turn = torch.arange(masks, device=hidden.device)[None, :, None]
    return ((rank[:, None] - turn * shown) % patches >= shown).flatten(0, 1)
