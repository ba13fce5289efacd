"""What training takes at least of a device's memory, told by a pass of shapes or of two images.

A lower bound: buffers that a backward pass or an optimizer needs for a moment come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from bench.api import VisionShape
from bench.errors import UsageError
from bench.machine import memory
from bench.plan.config import Resources
from bench.work.place import Place

TRAINED, KEPT = 16, 4
"""Bytes a parameter takes that is trained by Adam (value, gradient, two moments), or only kept."""

LARGEST = 2.0**43
"""Bytes of weights and their training that no process of any cluster holds."""

GIB = 2.0**30


@dataclass(frozen=True)
class Stage:
    """A training of ``module`` by ``recipe``: ``image`` bytes are kept for each in a step.

    A ``whole`` batch cannot be cut; no more than ``most`` images train, if that is not 0.
    """

    name: str
    recipe: Any
    module: Any
    image: float
    whole: bool = False
    most: int = 0

    @property
    def weights(self) -> int:
        """Bytes of the weights, with gradients and moments where they are trained."""
        found = self.module.parameters()
        return sum(p.numel() * (TRAINED if p.requires_grad else KEPT) for p in found)

    @property
    def each(self) -> float:
        """Bytes an image surely takes: of mixed precision it is known that none is below half."""
        return self.image if self.recipe.precision == "fp32" else self.image / 2

    def held(self, images: int, micro_batch: int, processes: int) -> int:
        """Images that a process holds at once, of so many that train."""
        images = min(images, self.most or images)
        share = -(-min(self.recipe.batch_size, images) // processes)
        return share if self.whole or not micro_batch else min(share, micro_batch)


class _Fused(TorchFunctionMode):
    """Attention as kernels compute it, which keep no N x N weights; a pass of shapes would."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """The fused kernel in place of whatever is chosen."""
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        mask = (kwargs or {}).get("attn_mask")
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(*args[:3], attn_mask=None if mask is None else mask.detach())[0]


class Saved(saved_tensors_hooks):
    """Counts what is kept for a backward pass while it is active, each storage once.

    Also of a pass that stops with an error; ``own`` are the weights, which are there anyhow.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self._own = {t.untyped_storage()._cdata for t in own}
        self._met: dict[int, torch.UntypedStorage] = {}
        self._fused = _Fused()

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._met[storage._cdata] = storage
        return tensor

    def __enter__(self) -> None:
        """Begins to count."""
        self._fused.__enter__()
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        """Ends it."""
        super().__exit__(*error)
        self._fused.__exit__(*error)

    def bytes(self) -> int:
        """What was kept so far."""
        return sum(storage.nbytes() for storage in self._met.values())


def check_images(count: int, shape: VisionShape, place: Place) -> None:
    """Refuses to make more images than main memory holds, as bytes and, normalised, as floats.

    Raises:
        UsageError: naming how many it holds.
    """
    there = memory.physical() if place.here else place.memory_gb * 1e9 or LARGEST
    each = (1 + 4) * shape.channels * shape.image_size**2
    if count * each > there:
        raise UsageError(
            f"{count} images of {shape.image_size} px are made in memory, of which "
            f"{there / GIB:.3g} GiB hold {int(there // each)}. Set data.train_images and "
            "data.test_images lower."
        )


def check(stages: Iterable[Stage], images: int, resources: Resources, place: Place) -> None:
    """Refuses a training on so many images that no memory there holds.

    Raises:
        UsageError: naming how many images at once would fit.
    """
    there = _memory(resources.device) if place.here else place.memory_gb * 1e9 or LARGEST
    for stage in stages:
        weights, each = stage.weights, stage.each
        if weights > there:
            raise UsageError(
                f"weights, gradients and Adam's moments alone take {weights / GIB:.3g} GiB, of "
                f"{there / GIB:.3g} GiB there are. Choose a smaller model."
            )
        held = stage.held(images, resources.micro_batch, place.processes)
        if weights + held * each > there:
            fit = 0 if stage.whole else int((there - weights) / each)
            parts = f"Hold fewer at once, --batch-size {fit}, or c" if fit else "C"
            raise UsageError(
                f"a step of {stage.name} keeps {each / GIB:.3g} GiB an image, so {held} images "
                f"and the weights take at least {(weights + held * each) / GIB:.3g} GiB, of "
                f"{there / GIB:.3g} GiB there are. {parts}hoose a smaller model."
            )


def _memory(device: str) -> int:
    """Bytes of the device's memory."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.get_device_properties(0).total_memory
    return memory.physical()
