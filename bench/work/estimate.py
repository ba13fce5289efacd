"""What a study will cost, from measured throughputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.plan.study import PRETRAIN, Task
from bench.store.record import Record
from bench.store.states import DONE

SpeedKey = tuple[str, str, str]
"""Arm, data and model: what a speed depends on, on one machine."""


@dataclass(frozen=True)
class Speed:
    """Measured speed of an arm: pre-training images/s and images an epoch, seconds of evaluation.

    ``disk_mib`` is what one pre-training leaves on disk.
    """

    images_per_s: float
    epoch_images: float
    evaluation_s: float
    disk_mib: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Cost of a set of runs: device-hours of each stage, wall time in seconds, disk in MiB."""

    pretrain_hours: float
    evaluation_hours: float
    wall_s: float
    disk_mib: float
    unknown: tuple[str, ...] = ()


def stored_speeds(records: Sequence[Record]) -> dict[SpeedKey, Speed]:
    """Median speeds of earlier runs, by (arm, data, model)."""
    groups: dict[SpeedKey, list[Record]] = {}
    for record in records:
        if record.status == DONE and record.images_per_s:
            groups.setdefault((record.arm, record.data, record.model), []).append(record)
    return {
        key: Speed(
            median(r.images_per_s or 0.0 for r in group),
            median(r.images_seen / r.epochs for r in group),
            median(sum(r.seconds.values()) for r in group),
        )
        for key, group in groups.items()
    }


def speed_key(task: Task) -> SpeedKey:
    """Arm, data and model of a task: what its speed depends on."""
    return (task.config.arm, task.config.data.name, task.config.model.name)


def cost(tasks: Sequence[Task], speeds: Mapping[SpeedKey, Speed], slots: tuple[int, int]) -> Cost:
    """Cost of computing the tasks; ``slots`` is (runs side by side, devices or threads a run)."""
    jobs, units = slots
    pretrain = evaluation = disk = longest = 0.0
    unknown = []
    for task in tasks:
        speed = speeds.get(speed_key(task))
        if speed is None:
            unknown.append(task.config.arm)
            continue
        if task.stage == PRETRAIN and task.config.init:
            continue  # its weights are given
        if task.stage == PRETRAIN:
            seconds = task.config.pretrain.epochs * speed.epoch_images / speed.images_per_s
            pretrain += seconds
            disk += speed.disk_mib
        else:
            seconds = speed.evaluation_s
            evaluation += seconds
        longest = max(longest, seconds)
    wall = max((pretrain + evaluation) / jobs, longest)
    hours = units / 3600
    return Cost(pretrain * hours, evaluation * hours, wall, disk, tuple(dict.fromkeys(unknown)))


def format_seconds(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
