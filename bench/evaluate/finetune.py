"""Fine-tuning: encoder and a new head trained on the labelled images, tested after the last epoch.

B images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from bench.data.batch import Step
from bench.evaluate.encoder import Encoder
from bench.plan.config import RunConfig
from bench.train.loop import Job, Session, autocast, fit
from bench.train.optim import cosine, finetune_optimizer


def finetune(encoder: Encoder) -> tuple[float, float]:
    """Trains encoder and a new head on each draw of labels; mean test accuracy and seconds."""
    found = [finetune_once(encoder, draw) for draw in range(encoder.config.finetune.draws)]
    return sum(top1 for top1, _ in found) / len(found), sum(seconds for _, seconds in found)


def finetune_once(encoder: Encoder, draw: int) -> tuple[float, float]:
    """One fine-tuning; what it draws has names of its own, as its states and its log have."""
    recipe = encoder.config.finetune
    name = f"{recipe.repeat}.{draw}" if draw else str(recipe.repeat)
    stage = f"finetune {draw}" if draw else "finetune"
    model = _classifier(encoder, name).to(encoder.device)
    subset = encoder.labelled(draw)
    feed = encoder.feed(f"finetune {name}", subset, recipe.batch_size, recipe.augment)
    optimizer = finetune_optimizer(model, recipe)
    warm = round(recipe.warmup_epochs * feed.steps)
    job = Job(
        stage=stage,
        module=model,
        optimizer=optimizer,
        scheduler=cosine(optimizer, recipe.epochs * feed.steps, warm, recipe.min_lr),
        feed=feed,
        epochs=recipe.epochs,
        losses=FinetuneLoss(model, encoder.config, encoder.session, encoder.images.classes, name),
        precision=recipe.precision,
        clip_grad=recipe.clip_grad,
        on_epoch=encoder.logger(stage),
    )
    model.train()
    meter = fit(job, encoder.session)
    model.eval()
    return encoder.accuracy(model, recipe.precision), meter.elapsed_s


def _classifier(encoder: Encoder, name: str) -> Any:
    """The encoder under a head drawn from a stream of its own."""
    recipe = encoder.config.finetune
    model = encoder.classifier(recipe.drop_path, recipe.pool)
    generator = encoder.streams.generator("head", name)
    nn.init.trunc_normal_(model.head.weight, std=recipe.head_init_std, generator=generator)
    nn.init.zeros_(model.head.bias)
    return model


@dataclass
class FinetuneLoss:
    """Cross-entropy of fine-tuning, with timm's mixup and label smoothing."""

    model: Any
    config: RunConfig
    session: Session
    classes: int
    name: str

    def __post_init__(self) -> None:
        recipe = self.config.finetune
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                recipe.mixup,
                recipe.cutmix,
                switch_prob=recipe.mixup_switch,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.classes,
            )
        self.soft = SoftTargetCrossEntropy()

    def __call__(self, step: Step, number: int, epoch: int) -> Iterator[Tensor]:
        """One loss for each micro-batch; their sum is the mean over the batch."""
        recipe, count = self.config.finetune, len(step.ids)
        images, labels = step.images, step.labels
        if self.mixup is not None:
            images, labels = self._mix(images, labels)
        noise = self.session.streams.samples(f"finetune {self.name} drop path", number, step.ids)
        size = self.session.micro_batch or max(1, count)
        for start in range(0, count, size):
            part = slice(start, start + size)
            with autocast(self.session.device, recipe.precision):
                logits = self.model(images[part], noise.select(part))
            yield self._criterion(logits.float(), labels[part]) * (len(images[part]) / step.count)

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images [B, C, S, S] and soft labels [B, K]; of an odd number the last stays whole.

        timm mixes pairs only; the originals drop a last batch that is not full.
        """
        even = len(images) // 2 * 2
        smoothing = self.config.finetune.label_smoothing
        rest = images[even:], mixup_target(labels[even:], self.classes, 1.0, smoothing)
        if not even:
            return rest
        mixed, soft = self.mixup(images[:even].clone(), labels[:even])  # type: ignore[misc]
        return torch.cat([mixed, rest[0]]), torch.cat([soft, rest[1]])

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim == 2:
            loss: Tensor = self.soft(logits, labels)
            return loss
        smoothing = self.config.finetune.label_smoothing
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
