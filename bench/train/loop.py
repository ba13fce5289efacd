"""The optimisation loop that pre-training, fine-tuning and probing share.

It knows steps, schedules, precision and checkpoints, and nothing of methods. A state saved at any
step continues bit for bit: every random draw is a function of (epoch, step), and all accumulated
values travel in the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from bench.data.batch import Feed, FeedConfig, Step
from bench.errors import NonFiniteLossError, RequeueError, StopRequestedError, few
from bench.machine.world import SOLO, World
from bench.plan.config import RunConfig
from bench.plan.sections import AugmentConfig
from bench.streams import Digest, Streams, preserved
from bench.train import checkpoint
from bench.train.compiled import compiled
from bench.train.monitor import GO_ON, REQUEUE, STOP, Monitor

CHECK_EVERY = 50
"""Steps between looks at the loss (each look waits for a GPU)."""


@dataclass
class Session:
    """Where a stage runs: device, peers, streams, monitor and how its states are kept.

    ``compile`` has models compiled for the shapes of their batches.
    """

    device: torch.device
    streams: Streams
    monitor: Monitor
    micro_batch: int = 0
    workers: int = 0
    world: World = SOLO
    compile: bool = False

    def stepped(self, module: Any) -> Callable[..., Any]:
        """What a step calls for ``module``: the module itself, or its compiled twin."""
        return compiled(module, self.device) if self.compile else module

    def feed_config(
        self, config: RunConfig, purpose: str, batch_size: int, augment: AugmentConfig
    ) -> FeedConfig:
        """Settings of a feed on this place; a last batch that is not full is kept."""
        return FeedConfig(
            data=config.data,
            augment=augment,
            image_size=config.model.image_size,
            batch_size=batch_size,
            drop_last=False,
            streams=self.streams,
            purpose=purpose,
            device=self.device,
            workers=self.workers,
            world=self.world,
        )


@dataclass
class Job:
    """One optimisation: what to step, how often, and how a batch becomes losses.

    ``losses`` yields one scalar for each micro-batch; their sum is the loss of the step. Of
    several processes each yields its images' part of it, unless the job is ``replicated``: then
    each computes the whole step alike. An image of a step counts ``each`` times.
    ``on_epoch`` is called after each epoch with (epochs done, step, mean loss); ``suspects`` names
    the parts of the last loss that are no numbers.
    """

    stage: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    feed: Feed
    epochs: int
    losses: Callable[[Step, int, int], Iterator[Tensor]]
    precision: str = "fp32"
    clip_grad: float = 0.0
    after_step: Callable[[int, int], None] = lambda step, total: None
    on_epoch: Callable[[int, int, float], None] = lambda epoch, step, loss: None
    suspects: Callable[[], list[str]] = list
    digests: dict[str, Digest] = field(default_factory=dict)
    replicated: bool = False
    each: int = 1

    @property
    def total(self) -> int:
        """Steps of the whole job."""
        return self.epochs * self.feed.steps


@dataclass
class Meter:
    """Accumulated values of a job; part of its checkpoints."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    images: int = 0
    epoch_loss: float = math.nan
    steady_s: float = 0.0
    steady_images: int = 0

    def rate(self) -> float | None:
        """Images/s, the first epoch of each attempt left out; None if there was no second one."""
        return self.steady_images / self.steady_s if self.steady_s else None

    def wait_share(self) -> float | None:
        """Share of the time that steps waited for their data."""
        return self.waited_s / self.elapsed_s if self.elapsed_s else None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Automatic mixed precision in bf16 or fp16; nothing in fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def fit(job: Job, session: Session) -> Meter:
    """Runs a job to its end, from its last checkpoint if there is one.

    Raises:
        NonFiniteLossError: if the loss is no number any more; the last good state is kept.
        StopRequestedError: if a signal asked to stop; the state has been saved.
    """
    scaler = torch.amp.GradScaler(session.device.type, enabled=job.precision == "fp16")
    states, world = session.monitor.folder.checkpoints / job.stage, session.world
    state = world.share(checkpoint.load_state(states) if world.leads else None)
    meter = _restore(job, scaler, world, state)
    started, steady = meter.step, (meter.steady_s, meter.steady_images)

    def save() -> None:
        _check_finite(meter, job)
        _fold(job, world)
        if world.leads:
            session.monitor.check()
            state = _state(job, scaler, meter)
            checkpoint.save_state(states, meter.step, state)

    with preserved():
        while meter.step < job.total:
            _run_epoch(job, session, scaler, meter, save)
            if meter.step - started <= job.feed.steps:
                meter.steady_s, meter.steady_images = steady
    if meter.step > started:
        save()
    return meter


def _run_epoch(
    job: Job,
    session: Session,
    scaler: torch.amp.GradScaler,
    meter: Meter,
    save: Callable[[], None],
) -> None:
    """The rest of the current epoch."""
    epoch, first = divmod(meter.step, job.feed.steps)
    pending: list[Tensor] = []
    batches = iter(job.feed.epoch(epoch, first))
    for _ in range(first, job.feed.steps):
        begin = time.perf_counter()
        step = next(batches)
        job.scheduler.step_update(meter.step)
        pending.append(_optimise(job, session, scaler, step, meter.step))
        job.after_step(meter.step, job.total)
        meter.step += 1
        ends_epoch = meter.step % job.feed.steps == 0
        if ends_epoch or len(pending) >= CHECK_EVERY or session.device.type == "cpu":
            _collect(pending, meter, job)
        _count_time(meter, step, begin, job.each)
        if ends_epoch:
            _close_epoch(job, meter)
        loss = meter.loss_sum / meter.loss_count if meter.loss_count else meter.epoch_loss
        rate, waited = meter.rate(), meter.wait_share()
        session.monitor.beat(job.stage, meter.step, job.total, rate, loss, waited)
        due = session.world.highest(session.monitor.urgency())
        if due != GO_ON and meter.step < job.total:
            _collect(pending, meter, job)
            save()
        if due >= STOP and meter.step < job.total:
            by = "SIGUSR2" if due == REQUEUE else session.monitor.stopping or "another process"
            kind = RequeueError if due == REQUEUE else StopRequestedError
            raise kind(f"stopped by {by}, state saved at step {meter.step}")


def _optimise(
    job: Job, session: Session, scaler: torch.amp.GradScaler, step: Step, number: int
) -> Tensor:
    """One optimizer step over all micro-batches; returns the detached loss."""
    job.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=session.device)
    session.streams.seed(job.stage, number)
    scaler.scale(total)  # it begins here, also on a process without an image of the first batch
    for loss in job.losses(step, number, number // job.feed.steps):
        scaler.scale(loss).backward()
        total += loss.detach()
    if not job.replicated:
        session.world.add_gradients(job.module.parameters(), step.count)
        session.world.total(total)
    if job.clip_grad:
        scaler.unscale_(job.optimizer)
        nn.utils.clip_grad_norm_(job.module.parameters(), job.clip_grad)
    scaler.step(job.optimizer)
    scaler.update()
    return total


def _collect(pending: list[Tensor], meter: Meter, job: Job) -> None:
    """Moves losses off the device and stops at the first that is no number."""
    for loss in torch.stack(pending).tolist() if pending else []:
        meter.loss_sum += loss
        meter.loss_count += 1
    pending.clear()
    _check_finite(meter, job)


def _check_finite(meter: Meter, job: Job) -> None:
    if not math.isfinite(meter.loss_sum):
        found = few(job.suspects())
        raise _not_finite(job, meter, f"loss ({found}) is" if found else "loss is")


def _not_finite(job: Job, meter: Meter, what: str) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{job.stage} {what} not finite at step {meter.step} of {job.total}; the last good "
        f"checkpoint is kept. Try a lower learning rate, bf16 instead of fp16, or clip_grad."
    )


def _count_time(meter: Meter, step: Step, begin: float, each: int) -> None:
    taken = time.perf_counter() - begin
    meter.elapsed_s += taken
    meter.waited_s += step.waited_s
    meter.steady_s += taken
    meter.images += step.count * each
    meter.steady_images += step.count * each


def _close_epoch(job: Job, meter: Meter) -> None:
    meter.epoch_loss = meter.loss_sum / max(1, meter.loss_count)
    meter.loss_sum, meter.loss_count = 0.0, 0
    job.on_epoch(meter.step // job.feed.steps, meter.step, meter.epoch_loss)


def _state(job: Job, scaler: torch.amp.GradScaler, meter: Meter) -> dict[str, Any]:
    """What a checkpoint holds.

    Raises:
        NonFiniteLossError: if weights are no numbers, though the loss before the step still was.
    """
    module = job.module.state_dict()
    if not all(bool(v.isfinite().all()) for v in module.values()):
        raise _not_finite(job, meter, "weights are")
    return {
        "module": module,
        "optimizer": job.optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "meter": vars(meter).copy(),
        "digests": {name: digest.total for name, digest in job.digests.items()},
    }


def _fold(job: Job, world: World) -> None:
    """Adds all processes' digests up on the leading one."""
    for digest in job.digests.values():
        world.total(digest.total)
        if not world.leads:
            digest.total.zero_()


def _restore(
    job: Job, scaler: torch.amp.GradScaler, world: World, state: dict[str, Any] | None
) -> Meter:
    if state is None:
        return Meter()
    job.module.load_state_dict(state["module"])
    job.optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    for name, digest in job.digests.items():
        if world.leads:
            digest.total.copy_(state["digests"][name])
    return Meter(**state["meter"])
