"""Recipes: the sections of a run's configuration, each a frozen dataclass.

Every field here can move a number and is part of the run id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from bench import registry
from bench.api.rules import (
    Amount,
    Count,
    Decay,
    Epochs,
    Images,
    Inside,
    Length,
    Name,
    Part,
    Range,
    Rising,
    Ruled,
    Share,
    Text,
)
from bench.errors import UsageError

Aspect = Annotated[float, Range(0.01, 100)]
"""Width over height."""

Channels = Length(1, 16)

RandAugment = Text(
    r"(rand(-(m[0-9]|m10|n[1-9]|p(0?\.\d+|0|1|1\.0)|mstd\d+(\.\d+)?|mmax\d{1,2}|inc[01]|tweights))*)?",
    "empty or timm's RandAugment, as rand-m9-mstd0.5-inc1",
)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Ruled, section="augment"):
    """Training-time augmentation; ``crop_scale`` (1, 1) means no random crop but tests' own.

    A crop that misses the image is drawn anew (``retry``, torchvision) or cut to fit (``clamp``,
    MAE's linear probe). ``color_jitter`` acts before the crop, as in BEiT.
    """

    crop_scale: Annotated[tuple[Part, Part], Rising(equal=True)] = (1.0, 1.0)
    crop_ratio: Annotated[tuple[Aspect, Aspect], Rising(equal=True)] = (3 / 4, 4 / 3)
    crop_misfit: Literal["retry", "clamp"] = "retry"
    flip: Share = 0.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    color_jitter: Annotated[float, Range(0, 2)] = 0.0
    auto_augment: Annotated[str, RandAugment] = ""
    random_erasing: Share = 0.0


NOT_AUGMENTED = AugmentConfig()
"""Images as tests see them."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Ruled, section="data"):
    """Data set, its normalisation, and how many of its training labels evaluation may use.

    ``labels`` 0 means all of them; the choice is balanced over classes and drawn per seed.
    ``train_images``, ``test_images`` and ``classes`` set sizes where a data set has a choice
    (its row in the registry; 0: its own default). ``holdout`` is the share of each class that tests
    where a data set has no test part.
    """

    YOUNG: ClassVar[tuple[str, ...]] = ("holdout",)

    name: Name
    mean: Annotated[tuple[Share, ...], Channels]
    std: Annotated[tuple[Part, ...], Channels]
    labels: Images = 0
    train_images: Images = 0
    test_images: Images = 0
    classes: Annotated[int, Range(0, 16)] = 0
    holdout: Annotated[float, Range(0, 0.9)] = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range, or a size that would be ignored."""
        super().__post_init__()
        free = registry.sizes(self.name)
        for size in ("train_images", "test_images", "classes", "holdout"):
            if getattr(self, size) and size not in free:
                able = ", ".join(n for n in registry.DATASETS.names() if size in registry.sizes(n))
                raise UsageError(
                    f"data.{size}={getattr(self, size)} is for data sets that leave it open "
                    f"({able}); '{self.name}' comes as it is. Set data.{size}=0."
                )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Ruled, section="pretrain"):
    """Pre-training recipe; ``batch_size`` is the effective one, over all devices.

    The peak learning rate is ``lr`` if given, else ``blr * batch_size / lr_batch``. Warm-up is
    ``warmup_epochs``, or ``warmup_share`` of the run when that is above 0. With ``multistep`` the
    rate falls tenfold at each of ``milestones``, shares of the run in (0, 1). ``precision`` is
    that of the matrix products, never guessed from the device; weights and losses are fp32.
    """

    RIVALS: ClassVar[dict[str, str]] = {"blr": "lr", "warmup_epochs": "warmup_share"}

    epochs: Epochs
    batch_size: Count
    blr: Amount
    lr: Amount = 0.0
    lr_batch: Count = 256
    min_lr: Amount = 0.0
    schedule: Literal["cosine", "multistep"] = "cosine"
    milestones: Annotated[tuple[Inside, ...], Rising()] = ()
    warmup_epochs: Amount = 0.0
    warmup_share: Share = 0.0
    weight_decay: Amount = 0.05
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    clip_grad: Amount = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()


def peak_lr(recipe: Any) -> float:
    """Peak learning rate: the absolute one if given, else blr scaled by the effective batch."""
    absolute = float(getattr(recipe, "lr", 0.0))
    return absolute or recipe.blr * recipe.batch_size / recipe.lr_batch


def warmup(recipe: PretrainConfig) -> float:
    """Warm-up length in epochs."""
    if recipe.warmup_share:
        return recipe.warmup_share * recipe.epochs
    return recipe.warmup_epochs
