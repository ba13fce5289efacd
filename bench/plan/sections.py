"""Recipes: the sections of a run's configuration, each a frozen dataclass.

Every field here can move a number and is part of the run id.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.errors import UsageError, check_range


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training-time augmentation; ``crop_scale`` (1, 1) means no random crop.

    A crop that misses the image is drawn anew (``retry``, torchvision) or cut to fit (``clamp``,
    MAE's linear probe). ``color_jitter`` acts before the crop, as in BEiT.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_misfit: Literal["retry", "clamp"] = "retry"
    flip: float = 0.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    color_jitter: float = 0.0
    auto_augment: str = ""
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "augment", ("flip", "random_erasing"), 0, 1)
        check_range(self, "augment", ("color_jitter",))


SIZES: dict[str, tuple[str, ...]] = {
    "procedural": ("train_images", "test_images", "classes"),
    "digits": ("train_images",),
    "fashion-mnist": ("train_images", "test_images"),
}
"""Sizes that a data set leaves open."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data set, its normalisation, and how many of its training labels evaluation may use.

    ``labels`` 0 means all of them; the choice is balanced over classes and drawn per seed.
    ``train_images``, ``test_images`` and ``classes`` set sizes where a data set has a choice
    (:data:`SIZES`; 0: its own default).
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: int = 0
    train_images: int = 0
    test_images: int = 0
    classes: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        sizes, free = ("train_images", "test_images", "classes"), SIZES.get(self.name, ())
        check_range(self, "data", ("labels", *sizes))
        check_range(self, "data", ("classes",), 0, 16 if "classes" in free else math.inf)
        for size in sizes:
            if getattr(self, size) and size not in free:
                able = ", ".join(name for name, known in SIZES.items() if size in known)
                raise UsageError(
                    f"data.{size}={getattr(self, size)} is for data sets that leave it open "
                    f"({able}); '{self.name}' comes as it is. Set data.{size}=0."
                )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pre-training recipe; ``batch_size`` is the effective one, over all devices.

    The peak learning rate is ``lr`` if given, else ``blr * batch_size / lr_batch``. Warm-up is
    ``warmup_epochs``, or ``warmup_share`` of the run when that is above 0. With ``multistep`` the
    rate falls tenfold at each of ``milestones``, shares of the run in (0, 1). ``precision`` is
    that of the matrix products, never guessed from the device; weights and losses are fp32.
    """

    epochs: int
    batch_size: int
    blr: float
    lr: float = 0.0
    lr_batch: int = 256
    min_lr: float = 0.0
    schedule: Literal["cosine", "multistep"] = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_epochs: float = 0.0
    warmup_share: float = 0.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip_grad: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "pretrain", ("batch_size", "lr_batch"), 1)
        check_range(self, "pretrain", ("blr", "lr", "min_lr", "warmup_epochs", "weight_decay"))
        check_range(self, "pretrain", ("warmup_share",), 0, 1)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tuning recipe, the same for every arm of a table.

    The encoder is fine-tuned ``draws`` times, each on another draw of ``data.labels`` images and
    another head; their mean is the one score of the pre-training.
    """

    epochs: int
    batch_size: int
    blr: float
    lr: float = 0.0
    lr_batch: int = 256
    min_lr: float = 1e-6
    warmup_epochs: float = 0.0
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_grad: float = 0.0
    drop_path: float = 0.0
    pool: Literal["mean", "cls"] = "mean"
    head_init_std: float = 2e-5
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_switch: float = 0.5
    label_smoothing: float = 0.0
    draws: int = 1
    repeat: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "finetune", ("epochs", "batch_size", "lr_batch", "draws"), 1)
        check_range(self, "finetune", ("blr", "lr", "min_lr", "warmup_epochs", "weight_decay"))
        check_range(self, "finetune", ("layer_decay", "drop_path", "label_smoothing"), 0, 1)
        check_range(self, "finetune", ("mixup_switch",), 0, 1)
        check_range(self, "finetune", ("mixup", "cutmix", "clip_grad", "head_init_std", "repeat"))


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Linear probe on frozen features behind a batch norm without affine parameters (MAE).

    ``lars`` is MAE's optimizer; ``sgd`` with the same momentum suits small sets.
    """

    optimizer: Literal["lars", "sgd"] = "lars"
    epochs: int = 90
    batch_size: int = 16384
    blr: float = 0.1
    lr_batch: int = 256
    warmup_epochs: float = 10.0
    weight_decay: float = 0.0
    pool: Literal["mean", "cls"] = "cls"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "probe", ("epochs", "batch_size", "lr_batch"), 1)
        check_range(self, "probe", ("blr", "warmup_epochs", "weight_decay"))


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """Weighted k-nearest-neighbour vote on frozen features, cosine similarity."""

    k: int = 20
    temperature: float = 0.07
    pool: Literal["mean", "cls"] = "mean"

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "knn", ("k",), 1)
        check_range(self, "knn", ("temperature",), ends=False)


def peak_lr(recipe: PretrainConfig | FinetuneConfig | ProbeConfig) -> float:
    """Peak learning rate: the absolute one if given, else blr scaled by the effective batch."""
    absolute = float(getattr(recipe, "lr", 0.0))
    return absolute or recipe.blr * recipe.batch_size / recipe.lr_batch


def warmup(recipe: PretrainConfig) -> float:
    """Warm-up length in epochs."""
    if recipe.warmup_share:
        return recipe.warmup_share * recipe.epochs
    return recipe.warmup_epochs
