"""What is said of a recipe that was sized for images of one's own: its parts, minutes and file."""

from __future__ import annotations

from collections.abc import Sequence

from bench import library
from bench.library import Request
from bench.plan.config import RunConfig
from bench.plan.study import PRETRAIN, Task
from bench.work.estimate import cost, stored_speeds


def recipe_lines(request: Request, missing: Sequence[Task]) -> list[str]:
    """Two lines, with what ``missing`` runs will take; none where the recipe was chosen."""
    sizing, configs = request.sizing, [c.config for c in request.study.cells]
    if sizing is None:
        return []
    arms = ", ".join(dict.fromkeys(c.arm for c in configs))
    budgets = " and ".join(str(e) for e in sorted({c.pretrain.epochs for c in configs}))
    seeds = len({c.seed for c in configs})
    where = "yours to edit" if sizing.path.exists() else "will lie there to edit"
    return [
        f"{sizing.seen()} -> {_parts(configs[0])}",
        f"pilot of {arms}: {budgets} epochs, {seeds} seed{'s' * (seeds > 1)}; "
        f"{_minutes(request, missing)}; "
        f"recipe ({where}): {sizing.path}",
    ]


def _parts(config: RunConfig) -> str:
    labels = f"{config.data.labels} labels" if config.data.labels else "all labels"
    patches = f"{config.model.patches} patches"
    return f"{config.model.name}, {patches}, batch {config.pretrain.batch_size}, {labels}"


def _minutes(request: Request, missing: Sequence[Task]) -> str:
    """Minutes of what is missing, by speeds of runs in the folder or by counted operations."""
    if not missing:
        return "nothing is missing"
    pretrainings = sum(t.stage == PRETRAIN for t in missing)
    places = library.launcher(request).places(pretrainings)
    found = cost(missing, stored_speeds(request.store.records()), (places.jobs, places.units))
    if not found.unknown:
        return f"about {_minutes_of(found.wall_s)} min at the speed of earlier runs"
    from bench.work.operations import seconds

    span = seconds(missing, request.resources.data_root, places.unit)
    low, high = (_minutes_of(s / places.jobs / max(1, places.units)) for s in span)
    return f"an estimate from counted operations, reading apart: {low} to {high} min"


def _minutes_of(seconds: float) -> str:
    """Minutes, of two digits."""
    return f"{float(f'{seconds / 60:.2g}'):g}"
