"""The configuration of one run, and what it is computed with.

Every field of :class:`RunConfig` can move a number and is part of the run id. What cannot (paths,
workers, threads, launchers, logging) lives in :class:`Resources`, outside the hash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Any

from bench.api import VisionShape, needs_of
from bench.api.rules import Line, Name, Natural, Processes, Range, Ruled, Seed, Tag, Text
from bench.plan.sections import DataConfig, PretrainConfig

Device = Annotated[str, Text(r"auto|cpu|cuda(:\d{1,2})?", "auto, cpu, cuda or cuda:NUMBER")]
"""What a run computes on; ``auto`` takes a GPU where there is one."""

Settings = Any
"""A frozen dataclass instance: one section of a run's configuration."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Ruled, section="run"):
    """Everything that decides the numbers of one cell (a method at a budget and a seed).

    ``arm`` is the name shown in tables; ``alias`` sets two otherwise equal arms apart (an A/A
    comparison) and is empty in ordinary runs. ``hyper`` is the method's own configuration and
    ``plugins`` the wrapped plug-ins with theirs, innermost first; ``own`` names those of their
    settings that set this arm apart (``x.rows``), which its name shows. ``tasks`` are the
    evaluation tasks with their recipes, in the registry's order. ``init`` is the content hash of a
    checkpoint that is evaluated instead of one pre-trained here; its path is a resource.
    """

    method: Name
    alias: Tag = ""
    seed: Seed = 0
    suite_seed: Seed = 0
    data: DataConfig
    model: VisionShape
    hyper: Settings
    plugins: tuple[tuple[Name, Settings], ...] = ()
    own: tuple[Name, ...] = ()
    pretrain: PretrainConfig
    tasks: tuple[tuple[Name, Settings], ...]
    init: Tag = ""

    @property
    def arm(self) -> str:
        """The row name: method, plug-ins with the terms that are on and own settings, alias."""
        name = self.method
        for plugin, config in self.plugins:
            keys = [k.partition(".")[2] for k in self.own if k.startswith(f"{plugin}.")]
            settings = ",".join(f"{key}={_shown(getattr(config, key))}" for key in keys)
            name += f"+{plugin}{_joined(getattr(config, 'label', ''), settings)}"
        return f"{name}@{self.alias}" if self.alias else name

    def task(self, name: str) -> Settings:
        """The recipe of an evaluation task; KeyError if the cell has no such task."""
        return dict(self.tasks)[name]

    @property
    def repeat(self) -> int:
        """Which evaluation of its pre-training this is, where there are several."""
        return max((getattr(recipe, "repeat", 0) for _, recipe in self.tasks), default=0)

    def with_task(self, name: str, recipe: Settings) -> RunConfig:
        """The same with another recipe of a task that it has."""
        tasks = tuple((n, recipe if n == name else old) for n, old in self.tasks)
        return replace(self, tasks=tasks)

    @property
    def base_arm(self) -> str:
        """The arm this one is compared with: the bare method, or what a method names instead.

        A method names it as its configuration's attribute ``baseline``, which is no setting.
        """
        return str(getattr(self.hyper, "baseline", "") or self.method)

    @property
    def masks(self) -> int:
        """How often an image stands in a step, each time under another mask.

        Above 1 the epochs of a budget are effective: an image is loaded that much less often.
        """
        parts = (self.hyper, *(settings for _, settings in self.plugins))
        return prod(needs_of(part).masks for part in parts)


def _joined(label: str, settings: str) -> str:
    """``(recal)`` and ``rows=all`` to ``(recal,rows=all)``."""
    if not settings:
        return label
    return f"{label[:-1]},{settings})" if label.endswith(")") else f"{label}({settings})"


def _shown(value: Any) -> str:
    """A value as one types it, in full: two that differ are never shown alike."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_shown, value))}]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.removesuffix(".0") if isinstance(value, float) else text


@dataclass(frozen=True, kw_only=True)
class Resources(Ruled, section="resources"):
    """Where and how a run is computed; never part of its id.

    ``micro_batch`` images are held on a device at once (0: all of its share of the batch). An
    image file that cannot be read is an error with ``strict_images``, else replaced and noted.
    ``trackers`` receive what is logged. ``compile`` has steps of training
    compiled, which moves numbers no further than another number of threads does: by rounding.
    """

    device: Device = "auto"
    threads: Processes = 0
    workers: Processes = 0
    micro_batch: Natural = 0
    nodes: Annotated[int, Range(1, 65_536)] = 1
    gpus_per_node: Processes = 0
    data_root: Line = ""
    init_path: Line = ""
    checkpoint_every_s: Annotated[float, Range(0, 1e9)] = 60.0
    strict_images: bool = False
    trackers: tuple[Name, ...] = ()
    compile: bool = False
