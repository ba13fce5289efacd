"""Failure classes: what went wrong with a run, in one word, and what to do about it."""

from __future__ import annotations

OOM, NON_FINITE, TIMEOUT, NODE, CODE, DATA = (
    "oom",
    "non-finite",
    "time-out",
    "node",
    "code",
    "data",
)

REMEDIES: dict[str, str] = {
    OOM: "out of memory: hold fewer images at once (--batch-size N; the effective batch stays, and "
    "but for attention dropout the numbers), or ask for more memory; then --retry",
    NON_FINITE: "the loss diverged: lower pretrain.blr, set pretrain.clip_grad, or bf16 instead of "
    "fp16; the cell counts as not reaching the target",
    TIMEOUT: "the time limit passed: raise --timeout; --retry goes on from the last checkpoint",
    NODE: "the machine failed, not the run: check disk space and node; --retry goes on from the "
    "last checkpoint",
    CODE: "an error in the program: read 'log RUN'; --retry once it is mended",
    DATA: "the data could not be read: check --data and its folder ('doctor'); then --retry",
}
"""One line of advice for each class."""


def remedy(failure: str) -> str:
    """The advice for a failure class; empty for an unknown one."""
    return REMEDIES.get(failure, "")
