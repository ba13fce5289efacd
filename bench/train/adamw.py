"""PyTorch's fused AdamW, without what it does in Python at every step on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """The same numbers: on a CPU the lists of tensors are made once instead of at every step."""

    _lists: list[list[list[Tensor]]] | None = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; as PyTorch takes it the first, any with a gradient missing, and scaled ones.

        A gradient scaler leaves it to a fused optimizer to unscale, and to skip what overflowed.
        """
        scaled = hasattr(self, "grad_scale") or hasattr(self, "found_inf")
        gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
        complete = all(g is not None and g.is_cpu for part in gradients for g in part)
        begun = len(self.state) == sum(map(len, gradients))
        if closure is not None or scaled or not complete or not begun:
            self._lists = None
            return super().step(closure)
        if self._lists is None:
            self._lists = [self._states(group["params"]) for group in self.param_groups]
        with torch.no_grad():
            for group, own, states in zip(self.param_groups, gradients, self._lists, strict=True):
                _step(group, own, *states)
        return None

    def load_state_dict(self, state_dict: Any) -> None:
        """Takes the state over; the lists are made anew."""
        super().load_state_dict(state_dict)
        self._lists = None

    def _states(self, params: list[Tensor]) -> list[list[Tensor]]:
        """Means, squares and counts of steps of a group."""
        names = ("exp_avg", "exp_avg_sq", "step")
        return [[self.state[p][name] for p in params] for name in names]


def _step(
    group: dict[str, Any],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
) -> None:
    torch._foreach_add_(steps, 1)
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        group["params"],
        gradients,
        means,
        squares,
        [],
        steps,
        amsgrad=group["amsgrad"],
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )
