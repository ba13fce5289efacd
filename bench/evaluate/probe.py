"""Linear probe: a linear classifier on frozen features behind a batch norm (MAE).

B images, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.batch import Step
from bench.evaluate.encoder import Encoder
from bench.plan.sections import AugmentConfig
from bench.train.loop import Job, Session, fit
from bench.train.optim import cosine, probe_optimizer


def probe(encoder: Encoder) -> float:
    """Accuracy of a linear classifier behind a batch norm without affine parameters.

    Features are computed once, or anew at each step if the recipe augments. Several processes
    share the encoder's work; each then trains the same head on the whole batch.
    """
    recipe, device, world = encoder.config.probe, encoder.device, encoder.session.world
    cached = recipe.augment == AugmentConfig()
    train = encoder.features(recipe.pool, "train")[0] if cached else None
    x_test, y_test = encoder.features(recipe.pool, "test")
    head = probe_head(x_test.shape[1], encoder.images.classes, encoder.session)
    subset = encoder.labelled()
    feed = encoder.feed("probe", subset, recipe.batch_size, recipe.augment)
    rows = torch.zeros(len(encoder.images.train), dtype=torch.long, device=device)
    rows[subset] = torch.arange(len(subset), device=device)

    def losses(step: Step, number: int, epoch: int) -> Iterator[Tensor]:
        x = encoder.embed(step.images, recipe.pool) if train is None else train[rows[step.ids]]
        yield F.cross_entropy(head(world.gather(x)), world.gather(step.labels))

    optimizer = probe_optimizer(head, recipe)
    warm = round(recipe.warmup_epochs * feed.steps)
    scheduler = cosine(optimizer, recipe.epochs * feed.steps, warm)
    job = Job("probe", head, optimizer, scheduler, feed, recipe.epochs, losses, replicated=True)
    fit(job, encoder.session)
    head.eval()
    with torch.no_grad():
        return 100.0 * float((head(x_test).argmax(1) == y_test).float().mean())


def probe_head(width: int, classes: int, session: Session) -> nn.Module:
    """Batch norm without affine parameters and a linear layer of std 0.01 (main_linprobe.py)."""
    linear = nn.Linear(width, classes)
    generator = session.streams.generator("probe", "head")
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear).to(session.device)
