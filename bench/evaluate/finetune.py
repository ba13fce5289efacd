"""Fine-tuning: encoder and a new head are trained on the labelled images.

B images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from bench.api.rules import Amount, Count, Decay, Epochs, Natural, Part, Range, Ruled, Share
from bench.evaluate.task import Score, scored
from bench.plan.sections import NOT_AUGMENTED, AugmentConfig, peak_lr

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.data.batch import Step
    from bench.evaluate.encoder import Encoder
    from bench.train.loop import Session


Alpha = Annotated[float, Range(0, 100)]
"""Parameter of a Beta distribution that mixes images; 0 is off."""

Std = Annotated[float, Range(0, 10)]
"""Standard deviation of initial values."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Ruled, section="finetune"):
    """Fine-tuning recipe, the same for every arm of a table.

    The encoder is fine-tuned ``draws`` times, each on another draw of ``data.labels`` images and
    another head; their mean is the one score of the pre-training.
    """

    RIVALS: ClassVar[dict[str, str]] = {"blr": "lr"}

    epochs: Epochs
    batch_size: Count
    blr: Amount
    lr: Amount = 0.0
    lr_batch: Count = 256
    min_lr: Amount = 1e-6
    warmup_epochs: Amount = 0.0
    layer_decay: Part = 1.0
    weight_decay: Amount = 0.05
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_grad: Amount = 0.0
    drop_path: Decay = 0.0
    pool: Literal["mean", "cls"] = "mean"
    head_init_std: Std = 2e-5
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0
    mixup_switch: Share = 0.5
    label_smoothing: Decay = 0.0
    draws: Annotated[int, Range(1, 1000)] = 1
    repeat: Natural = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = NOT_AUGMENTED


def finetune(encoder: Encoder, recipe: FinetuneConfig) -> Score:
    """Trains encoder and a new head on each draw of labels; mean test accuracy, all seconds."""
    found = [finetune_once(encoder, recipe, draw) for draw in range(recipe.draws)]
    mean, took = sum(s.top1 for s in found) / len(found), sum(s.seconds or 0.0 for s in found)
    return Score(mean, took, tuple(bits for s in found for bits in s.correct))


def finetune_once(encoder: Encoder, recipe: FinetuneConfig, draw: int) -> Score:
    """One fine-tuning; what it draws has names of its own, as its states and its log have."""
    from bench.train.loop import Job, fit
    from bench.train.optim import cosine

    name = f"{recipe.repeat}.{draw}" if draw else str(recipe.repeat)
    stage = f"finetune {draw}" if draw else "finetune"
    model = _classifier(encoder, recipe, name).to(encoder.device)
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
        losses=FinetuneLoss(
            encoder.session.stepped(model), recipe, encoder.session, encoder.classes, name
        ),
        precision=recipe.precision,
        clip_grad=recipe.clip_grad,
        on_epoch=encoder.logger(stage),
    )
    model.train()
    meter = fit(job, encoder.session)
    return scored(encoder.correct(model.eval(), recipe.precision), meter.elapsed_s)


def _classifier(encoder: Encoder, recipe: FinetuneConfig, name: str) -> Any:
    """The encoder with a head that is drawn anew for each repeat and draw."""
    from torch import nn

    model = encoder.classifier(recipe.drop_path, recipe.pool)
    generator = encoder.streams.generator("head", name)
    nn.init.trunc_normal_(model.head.weight, std=recipe.head_init_std, generator=generator)
    nn.init.zeros_(model.head.bias)
    return model


def finetune_optimizer(module: nn.Module, recipe: FinetuneConfig) -> torch.optim.Optimizer:
    """AdamW with layer-wise learning-rate decay; the head learns at the full rate.

    ``module`` is a :class:`bench.api.Classifier`.
    """
    from timm.optim import param_groups_layer_decay

    from bench.train.optim import adamw

    groups = param_groups_layer_decay(
        module,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=module.no_weight_decay(),  # type: ignore[operator]
        layer_decay=recipe.layer_decay,
    )
    return adamw(groups, peak_lr(recipe), recipe.betas)


@dataclass
class FinetuneLoss:
    """Cross-entropy of fine-tuning, with timm's mixup and label smoothing."""

    model: Any
    recipe: FinetuneConfig
    session: Session
    classes: int
    name: str = "0"

    def __post_init__(self) -> None:
        """Sets up timm's mixup where the recipe asks for it."""
        from timm.data import Mixup

        recipe = self.recipe
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(
                recipe.mixup,
                recipe.cutmix,
                switch_prob=recipe.mixup_switch,
                label_smoothing=recipe.label_smoothing,
                num_classes=self.classes,
            )

    def __call__(self, step: Step, number: int, epoch: int) -> Iterator[Tensor]:
        """One loss for each micro-batch; their sum is the mean over the batch."""
        from bench.train.loop import autocast

        count, session = len(step.ids), self.session
        images, labels = step.images, step.labels
        if self.mixup is not None:
            images, labels = self._mix(images, labels)
        noise = session.streams.samples(f"finetune {self.name} drop path", number, step.ids)
        size = session.micro_batch or max(1, count)
        for start in range(0, count, size):
            part = slice(start, start + size)
            with autocast(session.device, self.recipe.precision):
                logits = self.model(images[part], noise.select(part))
            yield self._criterion(logits.float(), labels[part]) * (len(images[part]) / step.count)

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images [B, C, S, S] and soft labels [B, K]; of an odd number the last stays whole.

        timm mixes pairs only; the originals drop a last batch that is not full.
        """
        import torch
        from timm.data.mixup import mixup_target

        even = len(images) // 2 * 2
        smoothing = self.recipe.label_smoothing
        rest = images[even:], mixup_target(labels[even:], self.classes, 1.0, smoothing)
        if not even:
            return rest
        mixed, soft = self.mixup(images[:even].clone(), labels[:even])  # type: ignore[misc]
        return torch.cat([mixed, rest[0]]), torch.cat([soft, rest[1]])

    def _criterion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of soft labels [B, K] timm's cross-entropy, of classes [B] the smoothed one."""
        from timm.loss import SoftTargetCrossEntropy
        from torch.nn.functional import cross_entropy

        if labels.ndim == 2:
            loss: Tensor = SoftTargetCrossEntropy()(logits, labels)
            return loss
        return cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
