"""AdamW and moving averages in float64, from their equations: what a trajectory is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.95), 1e-8

ROUNDING = 1e-8
"""Error of a gradient in float32 where gradients are up to about 0.1."""


class Walk:
    """Weights by name that walk down a loss; the teacher's follow the student's."""

    def __init__(self, weights: Mapping[str, Tensor], trained: set[str], decayed: set[str]) -> None:
        self.weights = {n: v.detach().clone() for n, v in weights.items()}
        self.trained, self.decayed = sorted(trained), decayed
        self.first = {n: torch.zeros_like(self.weights[n]) for n in self.trained}
        self.second = {n: torch.zeros_like(self.weights[n]) for n in self.trained}
        self.slack = {n: torch.zeros_like(self.weights[n]) for n in self.trained}

    def gradients(self, loss: Callable[[Mapping[str, Tensor]], Tensor]) -> tuple[float, dict]:
        """The loss and the gradient of every trained weight."""
        own = {n: self.weights[n].clone().requires_grad_() for n in self.trained}
        value = loss({**self.weights, **own})
        found = torch.autograd.grad(value, list(own.values()))
        return value.item(), dict(zip(own, found, strict=True))

    def step(self, gradients: Mapping[str, Tensor], number: int, lr: float, decay: float) -> None:
        """AdamW's step ``number``, from 1."""
        for name, g in gradients.items():
            if name in self.decayed:
                self.weights[name] = self.weights[name] * (1 - lr * decay)
            self.first[name] = BETAS[0] * self.first[name] + (1 - BETAS[0]) * g
            self.second[name] = BETAS[1] * self.second[name] + (1 - BETAS[1]) * g**2
            mean = self.first[name] / (1 - BETAS[0] ** number)
            size = (self.second[name] / (1 - BETAS[1] ** number)).sqrt() + EPS
            self.weights[name] = self.weights[name] - lr * mean / size
            self.slack[name] += lr * ROUNDING / size

    def misses(self, name: str, value: Tensor) -> float:
        """How far a weight in float32 is off, beyond what rounding explains.

        AdamW divides by the gradient's size: where that is next to nothing, so is the rounding
        error it enlarges, by ``slack``. A weight with a gradient of 1e-3 has a slack of 6e-8.
        """
        off = (value.double() - self.weights[name]).abs()
        return float((off - self.slack.get(name, 0.0)).max())

    def follow(self, pairs: Mapping[str, str], decay: float) -> None:
        """Each teacher's weight moves towards the student's of its name."""
        for slow, fast in pairs.items():
            self.weights[slow] = decay * self.weights[slow] + (1 - decay) * self.weights[fast]
