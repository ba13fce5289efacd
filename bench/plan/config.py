"""The configuration of one run: frozen dataclasses and the run id.

Every field here can move a number and is part of the run id. What cannot (paths, workers, threads,
launchers, logging) lives in :class:`Resources`, outside the hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

from bench.api import VisionShape
from bench.errors import UsageError, check_range

RECIPE_VERSION = 1
"""Raised when the meaning of a recipe field changes, so that old results are not reused."""

Section = Any
"""A frozen dataclass instance: one section of a run's configuration."""


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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data set, its normalisation, and how many of its training labels evaluation may use.

    ``labels`` 0 means all of them; the choice is balanced over classes and drawn per seed.
    ``train_images``, ``test_images`` and ``classes`` are ``procedural``'s (0: its own default).
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
        sizes, generated = ("train_images", "test_images", "classes"), self.name == "procedural"
        check_range(self, "data", ("labels", *sizes))
        check_range(self, "data", ("classes",), 0, 16 if generated else math.inf)
        for size in sizes:
            if getattr(self, size) and not generated:
                raise UsageError(
                    f"data.{size}={getattr(self, size)} is for generated images ('procedural'); "
                    f"'{self.name}' comes as it is. Set data.{size}=0."
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
    """Fine-tuning recipe, the same for every arm of a table."""

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
    repeat: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_range(self, "finetune", ("epochs", "batch_size", "lr_batch"), 1)
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


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the numbers of one cell (a method at a budget and a seed).

    ``arm`` is the name shown in tables; ``alias`` sets two otherwise equal arms apart (an A/A
    comparison) and is empty in ordinary runs. ``hyper`` is the method's own configuration and
    ``plugins`` the wrapped plug-ins with theirs, innermost first. ``init`` is the content hash of
    a checkpoint that is evaluated instead of one pre-trained here; its path is a resource.
    """

    method: str
    alias: str = ""
    seed: int = 0
    suite_seed: int = 0
    data: DataConfig
    model: VisionShape
    hyper: Section
    plugins: tuple[tuple[str, Section], ...] = ()
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    probe: ProbeConfig
    knn: KnnConfig
    init: str = ""

    @property
    def arm(self) -> str:
        """The row name: method, plug-ins with the terms that are on, alias."""
        name = self.method
        for plugin, config in self.plugins:
            name += f"+{plugin}{getattr(config, 'label', '')}"
        return f"{name}@{self.alias}" if self.alias else name

    @property
    def base_arm(self) -> str:
        """The arm this one is compared with: the bare method."""
        return self.method


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where and how a run is computed; never part of its id.

    ``micro_batch`` images are held on a device at once (0: all of its share of the batch). An
    image file that cannot be read is an error with ``strict_images``, else replaced and noted.
    """

    device: str = "auto"
    threads: int = 0
    workers: int = 0
    micro_batch: int = 0
    nodes: int = 1
    gpus_per_node: int = 0
    data_root: str = ""
    init_path: str = ""
    checkpoint_every_s: float = 60.0
    strict_images: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        counts = ("threads", "workers", "micro_batch", "gpus_per_node", "checkpoint_every_s")
        check_range(self, "resources", counts)
        check_range(self, "resources", ("nodes",), 1)


def peak_lr(recipe: PretrainConfig | FinetuneConfig | ProbeConfig) -> float:
    """Peak learning rate: the absolute one if given, else blr scaled by the effective batch."""
    absolute = float(getattr(recipe, "lr", 0.0))
    return absolute or recipe.blr * recipe.batch_size / recipe.lr_batch


def warmup(recipe: PretrainConfig) -> float:
    """Warm-up length in epochs."""
    if recipe.warmup_share:
        return recipe.warmup_share * recipe.epochs
    return recipe.warmup_epochs


# --- identity ---------------------------------------------------------------------------------


def to_plain(section: Section) -> Any:
    """Plain JSON values of a section, every default spelled out."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return {f.name: to_plain(getattr(section, f.name)) for f in fields(section)}
    if isinstance(section, tuple | list):
        return [to_plain(v) for v in section]
    return section


@lru_cache(maxsize=65536)
def _canonical(section: Section) -> str:
    return json.dumps(to_plain(section), sort_keys=True, separators=(",", ":"))


def digest(*parts: Any) -> str:
    """12 hexadecimal digits of SHA-256 over the canonical JSON of the parts."""
    text = "\n".join(_canonical(p) for p in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pretrain_parts(config: RunConfig) -> tuple[Any, ...]:
    data = dataclasses.replace(config.data, labels=0)
    identity = (RECIPE_VERSION, config.method, config.alias, config.init)
    seeds = (config.seed, config.suite_seed)
    return (identity, seeds, data, config.model, config.hyper, config.plugins, config.pretrain)


def pretrain_id(config: RunConfig) -> str:
    """Id of the pre-training run; cells that differ only in evaluation share it."""
    return _readable("pre", config) + digest(*_pretrain_parts(config))


def cell_id(config: RunConfig) -> str:
    """Id of the evaluation run of this cell (fine-tune, probe, k-NN)."""
    evaluation = (config.data, config.finetune, config.probe, config.knn)
    return _readable("fin", config) + digest(*_pretrain_parts(config), *evaluation)


def recipe_digest(config: RunConfig) -> str:
    """Hash of the evaluation recipe and data: equal for every cell one table may hold."""
    finetune = dataclasses.replace(config.finetune, repeat=0)
    return digest(config.data, config.model, finetune, config.probe, config.knn)


def identity(config: RunConfig) -> dict[str, Any]:
    """What a record says of its cell beside the scores, by field name."""
    return {
        "arm": config.arm,
        "base_arm": config.base_arm,
        "method": config.method,
        "plugins": [name for name, _ in config.plugins],
        "data": config.data.name,
        "model": config.model.name,
        "epochs": config.pretrain.epochs,
        "seed": config.seed,
        "repeat": config.finetune.repeat,
        "recipe": recipe_digest(config),
    }


def _readable(stage: str, config: RunConfig) -> str:
    arm = "".join(c if c.isalnum() or c in "+@" else "." for c in config.arm).strip(".")
    name = config.data.name.replace("/", ".")
    return f"{stage}-{arm}-{name}-e{config.pretrain.epochs}-s{config.seed}-"
