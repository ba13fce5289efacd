"""Where a batch may be cut: between groups of images whose statistics enter the loss together.

Pure; no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.api import Needs, needs_of
from bench.errors import UsageError
from bench.plan.config import RunConfig


def check_runs(configs: Iterable[RunConfig], micro_batch: int, processes: int = 1) -> None:
    """:func:`check_cuts` for every run of a study.

    Raises:
        UsageError: as there.
    """
    for config in configs:
        batch = config.pretrain.batch_size
        check_cuts(needs_of(config.hyper), batch, micro_batch, processes)


def check_cuts(needs: Needs, batch: int, micro_batch: int, processes: int) -> None:
    """Refuses to cut a batch within a group, so that no loss changes silently.

    Args:
        needs: of the method.
        batch: images of a step, over all processes.
        micro_batch: images that a process may hold at once, or 0 for all of its share.
        processes: of the run.

    Raises:
        UsageError: if a micro-batch holds less than a group, or a process would get none.
    """
    if needs.together == 1:
        return
    group = min(needs.together or batch, batch)
    why = f"{needs.setting}={needs.together}: {group} images enter the loss together"
    if 0 < micro_batch < group:
        raise UsageError(
            f"{why}, so a micro-batch of {micro_batch} would be another loss. Give --batch-size "
            f"{group} or 0, or set {needs.setting}={micro_batch}, which is another recipe."
        )
    groups = -(-batch // group)
    if processes > groups:
        raise UsageError(
            f"{why}, so a batch of {batch} has {groups} parts, too few for {processes} processes. "
            f"Use at most {groups}, a larger pretrain.batch_size or a smaller {needs.setting}."
        )


def whole_groups(needs: Needs, micro_batch: int) -> int:
    """The micro-batch rounded down to whole groups; 0 for all of a process's share."""
    return micro_batch // needs.together * needs.together if needs.together else 0
