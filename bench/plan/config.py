"""The configuration of one run, and what it is computed with.

Every field of :class:`RunConfig` can move a number and is part of the run id. What cannot (paths,
workers, threads, launchers, logging) lives in :class:`Resources`, outside the hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.api import VisionShape
from bench.errors import check_range
from bench.plan.sections import DataConfig, FinetuneConfig, KnnConfig, PretrainConfig, ProbeConfig

Settings = Any
"""A frozen dataclass instance: one section of a run's configuration."""


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
    hyper: Settings
    plugins: tuple[tuple[str, Settings], ...] = ()
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
