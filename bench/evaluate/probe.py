"""Linear probe: a linear classifier on frozen features, as in MAE's main_linprobe.py.

n labelled images, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api.rules import Amount, Count, Epochs, Ruled
from bench.evaluate.task import Score, scored
from bench.plan.sections import NOT_AUGMENTED, AugmentConfig, peak_lr

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.data.batch import Step
    from bench.evaluate.encoder import Encoder
    from bench.train.loop import Session


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(Ruled, section="probe"):
    """Linear probe on frozen features behind a batch norm without affine parameters (MAE).

    ``lars`` is MAE's optimizer; ``sgd`` with the same momentum suits small sets.
    """

    BATCH_NORM: ClassVar[bool] = True

    optimizer: Literal["lars", "sgd"] = "lars"
    epochs: Epochs = 90
    batch_size: Count = 16384
    blr: Amount = 0.1
    lr_batch: Count = 256
    warmup_epochs: Amount = 10.0
    weight_decay: Amount = 0.0
    pool: Literal["mean", "cls"] = "cls"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    augment: AugmentConfig = NOT_AUGMENTED


def probe(encoder: Encoder, recipe: ProbeConfig) -> Score:
    """A head on the images whose labels may be seen (``data.labels``)."""
    return head_on(encoder, recipe, encoder.labelled(), "probe")


def head_on(encoder: Encoder, recipe: ProbeConfig, subset: Tensor, name: str) -> Score:
    """Accuracy of a head trained on the training images ``subset``; ``name`` is the task's.

    Features are taken once, unless each step augments its images anew. Several processes share
    the encoder's work; each then trains the same head on the whole batch.
    """
    import torch

    from bench.train.loop import Job, fit
    from bench.train.optim import cosine

    cached = recipe.augment == NOT_AUGMENTED
    split, world = encoder.images.train, encoder.session.world
    train = encoder.features(recipe.pool, split, subset, recipe.precision)[0] if cached else None
    test, truth = encoder.features(recipe.pool, encoder.images.test, None, recipe.precision)
    head = probe_head(test.shape[1], encoder.classes, encoder.session, name)
    feed = encoder.feed(name, subset, recipe.batch_size, recipe.augment)
    rows = torch.zeros(len(split), dtype=torch.long, device=test.device)
    rows[subset] = torch.arange(len(subset), device=test.device)

    def losses(step: Step, number: int, epoch: int) -> Iterator[Tensor]:
        if train is None:
            x = encoder.embed(step.images, recipe.pool, recipe.precision)
        else:
            x = train[rows[step.ids]]
        labels = world.gather(step.labels)
        yield torch.nn.functional.cross_entropy(head(world.gather(x)), labels)

    optimizer = probe_optimizer(head, recipe)
    warm = round(recipe.warmup_epochs * feed.steps)
    scheduler = cosine(optimizer, recipe.epochs * feed.steps, warm)
    job = Job(name, head, optimizer, scheduler, feed, recipe.epochs, losses, replicated=True)
    meter = fit(job, encoder.session)
    head.eval()
    with torch.no_grad():
        return scored(head(test).argmax(1) == truth, meter.elapsed_s)


def probe_head(width: int, classes: int, session: Session, name: str = "probe") -> nn.Module:
    """Batch norm without affine parameters and a linear layer of std 0.01 (main_linprobe.py)."""
    from torch import nn

    linear = nn.Linear(width, classes)
    generator = session.streams.generator(name, "head")
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
    nn.init.zeros_(linear.bias)
    norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
    return nn.Sequential(norm, linear).to(session.device)


def probe_optimizer(module: nn.Module, recipe: ProbeConfig) -> torch.optim.Optimizer:
    """SGD of momentum 0.9, with LARS' trust ratio (coefficient 1e-3) for matrices if so asked.

    As in MAE's util/lars.py the ratio applies without weight decay too, which timm's ``Lars``
    does only when told to, and never to vectors, which are not decayed either.
    """
    import torch
    from timm.optim import Lars

    if recipe.optimizer == "sgd":
        return torch.optim.SGD(module.parameters(), peak_lr(recipe), momentum=0.9)
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay, "always_adapt": True},
        {"params": vectors, "weight_decay": 0.0, "always_adapt": False},
    ]
    return Lars(groups, lr=peak_lr(recipe), momentum=0.9, trust_coeff=0.001)
