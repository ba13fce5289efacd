"""One run in the processes a scheduler or torchrun starts.

``python -m bench.work.worker OUT RUN_ID``; the run must be registered: its folder holds the
resolved configuration.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError, UsageError
from bench.plan import resolve
from bench.plan.config import Resources
from bench.plan.study import Task
from bench.store.store import Store
from bench.work.flags import add_resource_flags

BUSY_WAIT_S = 2.0
"""Seconds between tries at a run that another process still holds."""


def load_task(store: Store, run_id: str) -> Task:
    """The task whose configuration lies in a run's folder.

    Raises:
        UsageError: if there is none.
    """
    values = store.run(run_id).config()
    if values is None:
        raise UsageError(f"no run '{run_id}' in '{store.runs}'. See 'python -m bench.run ls runs'.")
    config = resolve.run_from_plain(values["config"])
    return Task(values["stage"], run_id, config, values.get("parent", ""))


def compute(root: Path, run_id: str, resources: Resources) -> None:
    """Computes one registered run together with the other processes of this job, if any.

    Raises:
        StopRequestedError: if a signal asked to stop; the state is saved.
        Exception: whatever went wrong, after it has been recorded.
    """
    from bench.machine.device import pick_device
    from bench.machine.world import join
    from bench.work.runner import execute

    store = Store(root)
    task = load_task(store, run_id)
    world = join(cuda=pick_device(resources.device).type == "cuda")
    try:
        while world.leads and store.run(run_id).is_locked():
            time.sleep(BUSY_WAIT_S)
        execute(store, task, resources, world)
    finally:
        world.leave()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.work.worker", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that holds runs/")
    parser.add_argument("run", help="run id")
    parser.add_argument("--data-root", default="", help="folder of the data set")
    parser.add_argument("--init-path", default="", help="weights the encoder starts from")
    add_resource_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Computes one run; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        resources = Resources(
            device=args.device,
            threads=args.threads,
            workers=args.workers or 0,
            micro_batch=args.batch_size,
            data_root=args.data_root,
            init_path=args.init_path,
            checkpoint_every_s=args.checkpoint_every,
            strict_images=args.strict_images,
            trackers=tuple(args.track),
            compile=args.compile,
        )
        compute(args.out, args.run, resources)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
