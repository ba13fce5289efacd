"""What a pass carries through its layers when a plug-in says that some of it is never read.

Tokens are laid out once: class token, visible patches, masked ones. What a layer may read is then
its first C tokens, a slice, and what is left out is cut off the end. B images, N patches, T = 1 + N
places, K tokens carried, C columns that may be read, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import TokenHook, TokenPlan


@dataclass(frozen=True)
class Carried:
    """The tokens of a pass in the order in which they are carried.

    Attributes:
        order: Places [B, K] in the image, 0 for the class token.
        visible: Visible tokens of each image [B], the class token among them.
        wanted: Tokens of each image that are no padding [B].
        columns: C, the most visible tokens of an image.
        uneven: Whether images differ in their visible tokens.
        padded: Whether an image has fewer than K tokens.
        patches: The patches that are predicted, [B, N] in the image's own order.
        plan: The plug-in's plan.
        hook: The plug-in's hook, shown the layers that are not closed.
    """

    order: Tensor
    visible: Tensor
    wanted: Tensor
    columns: int
    uneven: bool
    padded: bool
    patches: Tensor
    plan: TokenPlan
    hook: TokenHook

    @cached_property
    def hidden(self) -> Tensor:
        """True [B, K] at masked tokens."""
        return self._place >= self.visible[:, None]

    @cached_property
    def unread(self) -> Tensor | None:
        """Bias [B, 1, 1, C], -inf at masked tokens among the first C; None if there are none."""
        return _shut(self.hidden[:, : self.columns]) if self.uneven else None

    @cached_property
    def padding(self) -> Tensor | None:
        """Bias [B, 1, 1, K], -inf at padding; None if there is none."""
        return _shut(self._place >= self.wanted[:, None]) if self.padded else None

    @cached_property
    def _place(self) -> Tensor:
        return torch.arange(self.order.shape[1], device=self.order.device)

    @property
    def read(self) -> int:
        """Tokens that any layer may read, of K."""
        return self.columns if all(self.plan.closed) else self.order.shape[1]

    def take(self, x: Tensor) -> Tensor:
        """Tokens [B, T, D] in the order carried, [B, K, D]."""
        return x.gather(1, self.order[:, :, None].expand(-1, -1, x.shape[2]))

    def masked(self, x: Tensor) -> Tensor:
        """The predicted tokens of ``x`` [B, K, D], image by image in raster order, [M, D]."""
        if not self.uneven and not self.padded:
            return x[:, self.columns :].flatten(0, 1)
        return x[self.hidden & (self._place < self.wanted[:, None])]

    def join(self, visible: Tensor, entering: Tensor) -> Tensor:
        """Visible tokens [B, C, D] and masked ones as they enter, of ``entering`` [B, K, D]."""
        if self.uneven:
            fresh = self.hidden[:, : self.columns, None]
            visible = torch.where(fresh, entering[:, : self.columns], visible)
        return torch.cat([visible, entering[:, self.columns :]], dim=1)


def carry(hook: TokenHook | None, hidden: Tensor, layers: int) -> Carried | None:
    """What to carry through ``layers`` layers for masks ``hidden`` [B, N]; None for everything."""
    if hook is None:
        return None
    plan = hook.plan(layers, hidden)
    return None if plan is None else lay_out(hidden, plan, hook)


def lay_out(hidden: Tensor, plan: TokenPlan, hook: TokenHook) -> Carried:
    """Lays tokens out by ``hidden`` [B, N] and the plan; waits once for a GPU, for the counts."""
    kind, patches = hidden.to(torch.uint8), hidden
    if plan.predicted is not None:
        patches = plan.predicted
        kind = kind + (hidden & ~patches)
    visible = 1 + hidden.shape[1] - hidden.sum(1)
    wanted = visible + patches.sum(1)
    least, columns, fewest, most = torch.stack([*visible.aminmax(), *wanted.aminmax()]).tolist()
    return Carried(
        order=F.pad(kind, (1, 0)).argsort(dim=1, stable=True)[:, :most],
        visible=visible,
        wanted=wanted,
        columns=columns,
        uneven=least < columns,
        padded=fewest < most,
        patches=patches,
        plan=plan,
        hook=hook,
    )


def _shut(columns: Tensor) -> Tensor:
    """Bias [B, 1, 1, K]: -inf at ``columns`` [B, K], 0 elsewhere."""
    bias = torch.zeros(columns.shape, device=columns.device)
    return bias.masked_fill_(columns, -torch.inf)[:, None, None]


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of two biases either of which may be missing."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
