"""SIGKILL at random moments to the driver, a worker, the fork server or all of them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from bench.store.states import RUNNING
from bench.store.store import Store

VICTIMS = ("driver", "worker", "fork server", "group")

MOMENTS = ("at the start", "in pre-training", "in an evaluation", "in an evaluation")
"""When a kill comes: before the first run computes, or a little after such a run is met."""


def strike(out: Path, driver: int, rng: random.Random) -> tuple[str, str] | None:
    """Kills somebody at a random moment; whom and in which stage. None if the study ended first."""
    victim, moment = rng.choice(VICTIMS), rng.choice(MOMENTS)
    if moment == MOMENTS[0]:
        time.sleep(rng.uniform(0, 2))
    else:
        while not _met(moment, {stage for _, stage in workers(out)}):
            if is_over(driver):
                return None
            time.sleep(0.02)
        time.sleep(rng.expovariate(4.0))
    stages = sorted({stage for _, stage in workers(out)}) or ["no run"]
    if is_over(driver) or not _kill(victim, out, driver, rng):
        return None
    return victim, "+".join(stages)


def _met(moment: str, stages: set[str]) -> bool:
    """Whether a run of that moment is being computed."""
    return bool(stages & {"pretrain"} if moment == "in pre-training" else stages - {"pretrain", ""})


def is_over(driver: int) -> bool:
    """Whether the driver has ended; it is not waited for."""
    return os.waitid(os.P_PID, driver, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def workers(out: Path) -> list[tuple[int, str]]:
    """Process id and stage of every run that is being computed."""
    found = []
    for folder in Store(out).folders():
        holder, status = folder.claim().split(), folder.status()
        if holder and status["state"] == RUNNING and folder.is_locked():
            found.append((int(holder[0]), str(status.get("stage", "")).partition(" ")[0]))
    return found


def _kill(victim: str, out: Path, driver: int, rng: random.Random) -> bool:
    targets = {
        "driver": lambda: [driver],
        "worker": lambda: [pid for pid, _ in workers(out)],
        "fork server": lambda: _fork_servers(driver),
        "group": lambda: [-driver],
    }[victim]()
    if not targets:
        return False
    try:
        os.kill(rng.choice(targets), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _fork_servers(driver: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"\nPPid:\t{driver}\n" in (place / "status").read_text()
            if mine and b"forkserver" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def settle(driver: int) -> None:
    """Ends the driver; runs of a driver that is gone go on, and the next command waits for them."""
    if not is_over(driver):
        os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
