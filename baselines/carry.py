"""What a pass carries through its layers when a plug-in says that some of it is never read.

Tokens are laid out once: class token, visible patches, masked ones. What a layer may read is then
its first C tokens, a slice, and what is left out is cut off the end. B images, N patches, T = 1 + N
places, K tokens carried, C columns that may be read, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import TokenHook, TokenPlan


@dataclass(frozen=True)
class Carried:
    """The tokens of a pass in the order in which they are carried.

    Attributes:
        order: Places [B, K] in the image, 0 for the class token.
        hidden: True [B, K] at masked tokens.
        predicted: True [B, K] at those whose patch is predicted: all that is no padding.
        patches: The predicted patches, [B, N] in the image's own order.
        columns: C, so many that every visible token of every image is among them.
        unread: Bias [B, 1, 1, C], -inf at masked tokens among the first C; None if there are none.
        padding: Bias [B, 1, 1, K], -inf where an image carries fewer than K; None if none does.
        plan: The plug-in's plan.
        hook: The plug-in's hook, shown the layers that are not closed.
    """

    order: Tensor
    hidden: Tensor
    predicted: Tensor
    patches: Tensor
    columns: int
    unread: Tensor | None
    padding: Tensor | None
    plan: TokenPlan
    hook: TokenHook

    @property
    def read(self) -> int:
        """Tokens that any layer may read, of K."""
        return self.columns if all(self.plan.closed) else self.order.shape[1]

    def take(self, x: Tensor) -> Tensor:
        """Tokens [B, T, D] in the order carried, [B, K, D]."""
        return x.gather(1, self.order[:, :, None].expand(-1, -1, x.shape[2]))

    def masked(self, x: Tensor) -> Tensor:
        """The predicted tokens of ``x`` [B, K, D], image by image in raster order, [M, D]."""
        if self.unread is None and self.padding is None:
            return x[:, self.columns :].flatten(0, 1)
        return x[self.predicted]

    def join(self, visible: Tensor, entering: Tensor) -> Tensor:
        """Visible tokens [B, C, D] and masked ones as they enter, of ``entering`` [B, K, D]."""
        if self.unread is not None:
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
    """Lays tokens out by ``hidden`` [B, N] and the plan; waits once for a GPU, for four counts."""
    patches = hidden if plan.predicted is None else plan.predicted
    kind = F.pad(hidden.to(torch.uint8) + (hidden & ~patches), (1, 0))
    visible, wanted = (kind == 0).sum(1), (kind < 2).sum(1)
    least, columns, fewest, most = torch.stack([*visible.aminmax(), *wanted.aminmax()]).tolist()
    place = torch.arange(most, device=hidden.device)
    masked, missing = place >= visible[:, None], place >= wanted[:, None]
    return Carried(
        order=kind.argsort(dim=1, stable=True)[:, :most],
        hidden=masked,
        predicted=masked & ~missing,
        patches=patches,
        columns=columns,
        unread=shut(masked[:, :columns]) if least < columns else None,
        padding=shut(missing) if fewest < most else None,
        plan=plan,
        hook=hook,
    )


def shut(columns: Tensor) -> Tensor:
    """Bias [B, 1, 1, K]: -inf at ``columns`` [B, K], 0 elsewhere."""
    return torch.zeros(columns.shape, device=columns.device).masked_fill_(columns, -torch.inf)[
        :, None, None
    ]


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of two biases either of which may be missing."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
