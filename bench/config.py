"""The configuration of one run: frozen dataclasses, strict loading, and the run id.

Every field here can move a number and is part of the run id. What cannot (paths, workers, threads,
launchers, logging) lives in :class:`Resources`, outside the hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any, Literal

from bench.api import VisionShape
from bench.errors import UsageError, check_range, unknown

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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data set, its normalisation, and how many of its training labels evaluation may use.

    ``labels`` 0 means all of them; the choice is balanced over classes and drawn per seed.
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
        check_range(self, "data", ("labels", "train_images", "test_images"))
        check_range(self, "data", ("classes",), 0, 16 if self.name == "procedural" else math.inf)


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
        check_range(self, "finetune", ("layer_decay", "drop_path"), 0, 1)


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


def peak_lr(recipe: PretrainConfig | FinetuneConfig | ProbeConfig) -> float:
    """Peak learning rate: the absolute one if given, else blr scaled by the effective batch."""
    absolute = float(getattr(recipe, "lr", 0.0))
    return absolute or recipe.blr * recipe.batch_size / recipe.lr_batch


def warmup(recipe: PretrainConfig) -> float:
    """Warm-up length in epochs."""
    if recipe.warmup_share:
        return recipe.warmup_share * recipe.epochs
    return recipe.warmup_epochs


# --- strict loading ---------------------------------------------------------------------------


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def load_section(cls: type, values: Mapping[str, Any], where: str) -> Section:
    """Builds the frozen dataclass ``cls`` from plain values.

    Raises:
        UsageError: for an unknown key, a value of the wrong type, or a missing one.
    """
    hints = _hints(cls)
    known = {f.name for f in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown("setting", f"{where}.{key}", (f"{where}.{k}" for k in known))
    loaded = {k: coerce(v, hints[k], f"{where}.{k}") for k, v in values.items()}
    required = {f.name for f in fields(cls) if _is_required(f)}
    missing = sorted(required - set(loaded))
    if missing:
        names = ", ".join(f"{where}.{m}" for m in missing)
        raise UsageError(f"missing setting: {names}. Set it in the preset or as {names}=VALUE.")
    return cls(**loaded)


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Turns ``value`` into the type ``hint``; numbers in strings are accepted, other types not.

    Raises:
        UsageError: if it does not fit.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return load_section(hint, value, where)
        raise _misfit(value, hint.__name__, where)
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return value
        raise unknown(f"value of {where}", str(value), map(str, allowed))
    if origin is tuple:
        return _coerce_tuple(value, hint, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else coerce(value, typing.get_args(hint)[0], where)
    return _coerce_scalar(value, hint, where)


def _coerce_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    items = typing.get_args(hint)
    if isinstance(value, str):
        value = [v for v in value.strip("[]() ").split(",") if v.strip()]
    if not isinstance(value, list | tuple):
        raise _misfit(value, "list", where)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise _misfit(value, f"list of {len(items)} values", where)
    return tuple(coerce(v, i, where) for v, i in zip(value, items, strict=True))


def _coerce_scalar(value: Any, hint: type, where: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif hint is str:
        if isinstance(value, str | int | float):
            return str(value)
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if hint is float:
                return number
            if number == int(number):
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    raise _misfit(value, hint.__name__, where)


def _misfit(value: Any, wanted: str, where: str) -> UsageError:
    return UsageError(f"{where}={value!r} is not a valid {wanted}.")


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
