"""Pre-training: turns a method and an image set into an encoder. Knows no method by name."""

from __future__ import annotations

import copy
import dataclasses
import math
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.api import Batch, Method, MethodOutput, Needs, masks_at, needs_of
from bench.data.batch import Feed, FeedConfig, Step, repeated
from bench.data.feed import evaluation_batches, make_feed
from bench.data.images import ImageSet
from bench.data.views import DRAWS, view_for
from bench.plan.config import RunConfig
from bench.plan.cuts import check_cuts, whole_groups
from bench.store.record import Measured
from bench.streams import Digest
from bench.train.loop import Job, Session, autocast, fit
from bench.train.masks import Masks
from bench.train.method import measure_layers
from bench.train.optim import pretrain_optimizer, pretrain_scheduler

PROBE_IMAGES = 32
"""Images of the fixed batch on which a run's layers are measured."""

FLOP_IMAGES = 8
"""Images on which operations are counted."""

LOG_POINTS = 10
"""How often along a run the layers are measured."""


@dataclass
class Pretraining:
    """One pre-training: the method, its data and its session."""

    method: Method
    images: ImageSet
    config: RunConfig
    session: Session
    shorten: Callable[[Feed], Feed] = lambda feed: feed
    _terms: dict[str, Tensor] = field(default_factory=dict)
    _parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        """What the method needs of a batch."""
        return needs_of(self.config.hyper)

    def run(self) -> Measured:
        """Trains to the end of the schedule and returns what the record needs."""
        job = self._job()
        per_image = self.flops_per_image(job)
        if not self.session.monitor.folder.metrics():
            self.session.monitor.log(stage="pretrain", epoch=0, step=0, **self.measure_layers())
        meter = fit(job, self.session)
        return Measured(
            pretrain_loss=meter.epoch_loss,
            images_seen=meter.images,
            images_per_s=meter.rate(),
            pretrain_s=meter.elapsed_s,
            data_wait_share=meter.wait_share(),
            flops=per_image * meter.images,
            peak_memory_mib=peak_memory_mib(self.session.device),
            digests={name: digest.text() for name, digest in job.digests.items()},
        )

    def _job(self) -> Job:
        recipe, session, each = self.config.pretrain, self.session, self.config.masks
        passes = recipe.epochs // each
        subset = torch.arange(len(self.images.pretrain))
        batch = min(recipe.batch_size, len(subset))
        check_cuts(self.needs, batch, session.micro_batch, session.world.size)
        feed = self.shorten(make_feed(self.images.pretrain, subset, self._feed_config()))
        module: Any = self.method
        optimizer = pretrain_optimizer(module, recipe, self.method.no_weight_decay())
        seen = ("order", "crop", "mask", *(["view"] if self.needs.view else []))
        digests = {name: Digest.zero(session.device) for name in seen}
        return Job(
            stage="pretrain",
            module=module,
            optimizer=optimizer,
            scheduler=pretrain_scheduler(optimizer, recipe, feed.steps / each),
            feed=feed,
            epochs=passes,
            losses=lambda step, number, epoch: self._losses(
                repeated(step, each), epoch, number, passes * feed.steps, digests
            ),
            precision=recipe.precision,
            clip_grad=recipe.clip_grad,
            after_step=self.method.after_step,
            on_epoch=self._log_epoch,
            digests=digests,
            suspects=self._suspects,
            each=each,
        )

    def _feed_config(self) -> FeedConfig:
        recipe = self.config.pretrain
        size, augment = recipe.batch_size // self.config.masks, recipe.augment
        config = self.session.feed_config(self.config, "pretrain", size, augment)
        return dataclasses.replace(config, drop_last=True, together=self.needs.together)

    @cached_property
    def _forward(self) -> Callable[[Batch], MethodOutput]:
        return self.session.stepped(self.method)

    @cached_property
    def _masks(self) -> Masks:
        return Masks(self.method, self.session.streams, len(self.images.pretrain))

    def _losses(
        self, step: Step, epoch: int, number: int, total: int, digests: dict[str, Digest]
    ) -> Iterator[Tensor]:
        """One loss for each micro-batch, weighted so that their sum is the batch's own loss.

        ``number`` counts the ``total`` steps of the run from 0.
        """
        streams, count, world = self.session.streams, len(step.ids), self.session.world
        if world.size > 1:  # what a method draws without naming an image, as attention dropout
            streams.seed("pretrain", number, world.rank)
        noise = streams.samples("drop path", number, self._draws_of(step))
        once = streams.samples("step", number, step.ids.new_zeros(1))
        own = self._masks.of(epoch, step.ids)
        hidden = masks_at(self.method, own, noise, once)
        most = 0 if hidden is own or not count else int(hidden.sum(1).max())
        digests["order"].add(epoch, step.ids, (step.places + number * step.count)[:, None])
        digests["crop"].add(epoch, step.ids, step.boxes)
        digests["mask"].add(epoch, step.ids, hidden)
        everything = world.total(hidden.sum())
        views = streams.samples("view", epoch, step.ids)
        if "view" in digests:
            digests["view"].add(epoch, step.ids, views.uniform(DRAWS))
        size = whole_groups(self.needs, self.session.micro_batch) or max(1, count)
        for start in range(0, count, size):
            part = slice(start, start + size)
            batch = Batch(
                step.images[part],
                hidden[part],
                noise.select(part),
                progress=number / total,
                view=view_for(self.config, step.images[part], views.select(part)),
                step=once,
                most=most,
            )
            with autocast(self.session.device, self.config.pretrain.precision):
                output = self._forward(batch)
            self._terms = dict(output.terms)
            self._parts = {"the method's own loss": output.loss.detach()}
            whole = len(batch.images) == step.count
            loss = output.loss if whole else output.loss * (hidden[part].sum() / everything)
            if output.penalty is not None:
                loss = loss + output.penalty * (len(batch.images) / step.count)
                self._parts["a plug-in's penalty"] = output.penalty.detach()
            yield loss

    def _suspects(self) -> list[str]:
        """What of the last loss is no number: the loss or the penalty, and which terms."""
        parts = {**self._parts, **self._terms}
        return [name for name, value in parts.items() if not math.isfinite(float(value))]

    def _draws_of(self, step: Step) -> Tensor:
        """Numbers by which images draw: another one each time that an image stands in a step."""
        each = self.config.masks
        if each == 1:
            return step.ids
        return step.ids * each + torch.arange(len(step.ids), device=step.ids.device) % each

    def _log_epoch(self, done: int, step: int, loss: float) -> None:
        """Logs the loss; at the first epoch and about ten times a run also measures the layers.

        ``done`` counts passes over the images, each of which is an epoch for each of their masks.
        """
        each = self.config.masks
        passes, epoch = self.config.pretrain.epochs // each, done * each
        every = max(1, passes // LOG_POINTS)
        values: dict[str, Any] = {"stage": "pretrain", "epoch": epoch, "step": step, "loss": loss}
        if done == 1 or done % every == 0 or done == passes:
            terms = {name: float(value) for name, value in self._terms.items()}
            values |= {"terms": terms, **self.measure_layers()}
        self.session.monitor.log(**values)

    def measure_layers(self) -> dict[str, Any]:
        """What is measured of the layers on a fixed batch, of any method alike."""
        return measure_layers(self.method, self._fixed_batch(PROBE_IMAGES))

    def _fixed_batch(self, count: int) -> Batch:
        split = self.images.pretrain
        ids = torch.arange(min(count, len(split)))
        feed = dataclasses.replace(self._feed_config(), batch_size=len(ids), workers=0)
        images, _ = next(evaluation_batches(split, ids, feed))
        ids = ids.to(images.device)
        hidden = self.method.draw_hidden(self.session.streams.samples("probe", 0, ids))
        views = self.session.streams.samples("probe view", 0, ids)
        return Batch(images, hidden, view=view_for(self.config, images, views))

    def flops_per_image(self, job: Job) -> float:
        """Operations of one image's forward and backward pass, counted once, half way through."""
        twin: Any = copy.deepcopy(self.method)
        batch = self._fixed_batch(FLOP_IMAGES)
        ids = torch.arange(len(batch.images), device=batch.images.device)
        noise = self.session.streams.samples("flops", 0, ids)
        once = self.session.streams.samples("step", 0, ids.new_zeros(1))
        batch = dataclasses.replace(batch, noise=noise, progress=0.5, step=once)
        with FlopCounterMode(display=False) as counter:
            output = twin(batch)
            loss = output.loss if output.penalty is None else output.loss + output.penalty
            loss.backward()
        return counter.get_total_flops() / len(batch.images)


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory: of the device's allocator on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
