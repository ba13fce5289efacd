"""States of a run."""

from __future__ import annotations

PENDING, RUNNING, DONE, FAILED, BLOCKED, STOPPED = (
    "pending",
    "running",
    "done",
    "failed",
    "blocked",
    "stopped",
)

STATES = (PENDING, RUNNING, DONE, FAILED, BLOCKED, STOPPED)
