"""The session of a stage, from a run's configuration and the resources it gets."""

from __future__ import annotations

from bench.machine.device import pick_device
from bench.machine.world import SOLO, World
from bench.plan.config import Resources, RunConfig
from bench.streams import Streams
from bench.train.loop import Session
from bench.train.monitor import Monitor


def session_of(
    config: RunConfig, resources: Resources, monitor: Monitor, world: World = SOLO
) -> Session:
    """Device, streams and cuts of a run that reports to ``monitor``."""
    return Session(
        device=pick_device(resources.device),
        streams=Streams(config.suite_seed, config.seed),
        monitor=monitor,
        micro_batch=resources.micro_batch,
        workers=resources.workers,
        world=world,
        compile=resources.compile,
    )
