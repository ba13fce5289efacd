"""What was vetted and found sound, by content: the same models are not built again to plan them.

Imports no torch unless there is something new to vet. A verdict counts for the same settings, code,
versions and memory alone; what rests on files (images, a given checkpoint) or on a GPU is looked at
each time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.machine import cache, memory, provenance
from bench.plan.config import Resources, RunConfig
from bench.plan.identity import digest
from bench.store.files import read_json, write_json
from bench.work.place import Place

MOST = 1000
"""Verdicts kept, the latest."""


def vet(configs: Sequence[RunConfig], resources: Resources, place: Place) -> list[str]:
    """Refuses what could not run; returns what a reader should know of the images.

    Raises:
        UsageError: naming arm and setting.
    """
    different = list({_parts(c): c for c in configs}.values())
    file = _file()
    on_files = resources.data_root or resources.init_path
    on_gpus = place.gpus or resources.device.startswith("cuda")
    if file is None or on_files or on_gpus:
        return _vet(different, resources, place)
    kept = _kept(file)
    keys = {_key(c, resources, place): c for c in different}
    fresh = [c for key, c in keys.items() if key not in kept]
    if not fresh:
        return []
    notes = _vet(fresh, resources, place)
    from bench.data.outline import train_labels

    sound = [key for key, c in keys.items() if train_labels(c.data) is not None]
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        write_json(file, {"sound": [*kept - {*sound}, *sound][-MOST:]}, durable=False)
    return notes


def _vet(configs: Sequence[RunConfig], resources: Resources, place: Place) -> list[str]:
    from bench.work import vet as work

    return work.vet(configs, resources, place)


def _parts(config: RunConfig) -> tuple[Any, ...]:
    """Everything of a configuration that is vetted but the seed."""
    shape = (config.method, config.hyper, config.plugins, config.model)
    step = (config.pretrain.batch_size, config.pretrain.precision)
    return (*shape, config.data, config.tasks, config.init, step)


def _key(config: RunConfig, resources: Resources, place: Place) -> str:
    seeds = (config.suite_seed, config.seed)
    where = (resources.device, resources.micro_batch, *astuple(place), _memory())
    return digest(*_parts(config), seeds, where, _code())


def _memory() -> tuple[Any, ...]:
    """Bytes of this machine's memory, and the GPUs that a process finds."""
    gpus = sorted(str(p) for p in Path("/dev").glob("nvidia[0-9]*"))
    seen = (*gpus, os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.path.exists("/dev/kfd"))
    return (memory.physical(), *seen)


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the versions and of names, sizes and times of every source that has a say."""
    stamps = [stamp for path in provenance.folders().values() for stamp in _sources(path)]
    return digest(tuple(provenance.releases().items()), tuple(stamps))


def _sources(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each Python file of a package."""
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns


def _file() -> Path | None:
    """Where the verdicts lie; None where the environment wants none."""
    folder = cache.folder()
    return None if folder is None else folder / "vetted.json"


def _kept(file: Path) -> set[str]:
    values: Iterable[Any] = (read_json(file) or {}).get("sound", [])
    return {v for v in values if isinstance(v, str)} if isinstance(values, list) else set()
