"""What an encoder is worth: fine-tuning, linear probe and k-NN, all scored after the last epoch.

B images, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from bench.api import ClassifierOptions, Method
from bench.data.batch import Feed, FeedConfig, Step
from bench.data.feed import evaluation_batches, make_feed
from bench.data.images import ImageSet, Split
from bench.data.load import labelled_subset
from bench.plan.config import RunConfig
from bench.plan.sections import AugmentConfig
from bench.train.loop import Job, Session, autocast, fit
from bench.train.optim import cosine, finetune_optimizer, probe_optimizer

EVAL_BATCH = 512
"""Images at once when nothing is trained."""


@dataclass
class Evaluation:
    """The evaluation of one pre-trained encoder."""

    method: Method
    weights: dict[str, Tensor]
    images: ImageSet
    config: RunConfig
    session: Session
    shorten: Callable[[Feed], Feed] = lambda feed: feed

    def run(self) -> dict[str, Any]:
        """Fine-tunes, probes and votes; accuracies in per cent of the test images."""
        top1, seconds = self.finetune()
        probe, knn = self.frozen()
        return {
            "finetune_top1": top1,
            "finetune_s": seconds,
            "probe_top1": probe,
            "knn_top1": knn,
        }

    # --- fine-tuning ----------------------------------------------------------------------

    def finetune(self) -> tuple[float, float]:
        """Trains encoder and a new head on each draw of labels; mean test accuracy and seconds."""
        found = [self._finetune(draw) for draw in range(self.config.finetune.draws)]
        return sum(top1 for top1, _ in found) / len(found), sum(seconds for _, seconds in found)

    def _finetune(self, draw: int) -> tuple[float, float]:
        """One fine-tuning; what it draws has names of its own, as its states and its log have."""
        recipe, device = self.config.finetune, self.session.device
        name = f"{recipe.repeat}.{draw}" if draw else str(recipe.repeat)
        stage = f"finetune {draw}" if draw else "finetune"
        model = self._classifier(name).to(device)
        labels, streams = self.config.data.labels, self.session.streams
        subset = labelled_subset(self.images.train, labels, streams, draw)
        size = min(recipe.batch_size, len(subset))
        feed = make_feed(
            self.images.train, subset, self._feed(f"finetune {name}", size, recipe.augment)
        )
        optimizer = finetune_optimizer(model, recipe)
        warm = round(recipe.warmup_epochs * feed.steps)
        scheduler = cosine(optimizer, recipe.epochs * feed.steps, warm, recipe.min_lr)
        loss = _FinetuneLoss(model, self.config, self.session, self.images.classes, name)
        job = Job(
            stage=stage,
            module=model,
            optimizer=optimizer,
            scheduler=scheduler,
            feed=self.shorten(feed),
            epochs=recipe.epochs,
            losses=loss,
            precision=recipe.precision,
            clip_grad=recipe.clip_grad,
            on_epoch=self._logger(stage),
        )
        model.train()
        meter = fit(job, self.session)
        model.eval()
        return self._accuracy(model), meter.elapsed_s

    def _classifier(self, name: str) -> Any:
        recipe = self.config.finetune
        options = ClassifierOptions(
            classes=self.images.classes, drop_path=recipe.drop_path, pool=recipe.pool
        )
        model: Any = self.method.classifier(options)
        model.load_encoder(self.weights)
        generator = self.session.streams.generator("head", name)
        nn.init.trunc_normal_(model.head.weight, std=recipe.head_init_std, generator=generator)
        nn.init.zeros_(model.head.bias)
        return model

    def _feed(self, purpose: str, batch_size: int, augment: AugmentConfig) -> FeedConfig:
        return FeedConfig(
            data=self.config.data,
            augment=augment,
            image_size=self.config.model.image_size,
            batch_size=batch_size,
            drop_last=False,
            streams=self.session.streams,
            purpose=purpose,
            device=self.session.device,
            workers=self.session.workers,
            world=self.session.world,
        )

    def _logger(self, stage: str) -> Any:
        def log(epoch: int, step: int, loss: float) -> None:
            self.session.monitor.log(stage=stage, epoch=epoch, step=step, loss=loss)

        return log

    @torch.no_grad()
    def _accuracy(self, model: Any) -> float:
        split, world = self.images.test, self.session.world
        correct = torch.zeros((), dtype=torch.long, device=self.session.device)
        mine = torch.arange(len(split))[world.span(len(split))]
        feed = self._feed("test", EVAL_BATCH, AugmentConfig())
        for images, labels in evaluation_batches(split, mine, feed):
            with autocast(self.session.device, self.config.finetune.precision):
                logits = model(images)
            correct += (logits.argmax(1) == labels).sum()
        return 100.0 * int(world.total(correct)) / len(split)

    # --- frozen features ------------------------------------------------------------------

    def frozen(self) -> tuple[float, float]:
        """Linear-probe and k-NN accuracy on frozen features."""
        encoder: Any = self.method.encoder()
        encoder.load_state_dict(self.weights)
        encoder.to(self.session.device).eval().requires_grad_(False)
        subset = labelled_subset(self.images.train, self.config.data.labels, self.session.streams)
        everything = torch.arange(len(self.images.test))
        probe, knn = self.config.probe, self.config.knn
        cached = probe.augment == AugmentConfig()
        train = {
            pool: self._features(encoder, pool, self.images.train, subset)
            for pool in {knn.pool, probe.pool if cached else knn.pool}
        }
        test = {
            pool: self._features(encoder, pool, self.images.test, everything)
            for pool in {knn.pool, probe.pool}
        }
        found = train[probe.pool][0] if cached else None
        score = self._probe(encoder, subset, found, test[probe.pool])
        return score, self._knn(train[knn.pool], test[knn.pool])

    @torch.no_grad()
    def _features(
        self, encoder: Any, pool: str, split: Split, subset: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [n, D] in float32 and labels [n]."""
        feed = self._feed("features", EVAL_BATCH, AugmentConfig())
        found, labels = [], []
        world = self.session.world
        for images, truth in evaluation_batches(split, subset[world.span(len(subset))], feed):
            found.append(self._embed(encoder, images, pool))
            labels.append(truth)
        return world.gather(torch.cat(found)), world.gather(torch.cat(labels))

    @torch.no_grad()
    def _embed(self, encoder: Any, images: Tensor, pool: str) -> Tensor:
        """Features [B, D] in float32, a limited number of images at a time."""
        with autocast(self.session.device, self.config.probe.precision):
            parts = images.split(self.session.micro_batch or EVAL_BATCH)
            return torch.cat([encoder.features(part, pool).float() for part in parts])

    def _knn(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
        """Accuracy of the cosine-weighted vote of the k nearest training images."""
        config, classes = self.config.knn, self.images.classes
        guesses = [
            knn_vote(part, train, (config.k, config.temperature), classes)
            for part in test[0].split(EVAL_BATCH)
        ]
        return 100.0 * float((torch.cat(guesses) == test[1]).float().mean())

    def _probe(
        self, encoder: Any, subset: Tensor, train: Tensor | None, test: tuple[Tensor, Tensor]
    ) -> float:
        """Accuracy of a linear classifier behind a batch norm without affine parameters.

        ``train`` holds the features of ``subset`` [n, D], or is None when each step augments its
        images anew; ``test`` features and labels. Several processes share the encoder's work; each
        then trains the same head on the whole batch.
        """
        recipe, device, world = self.config.probe, self.session.device, self.session.world
        head = _probe_head(test[0].shape[1], self.images.classes, self.session)
        feed_config = self._feed("probe", min(recipe.batch_size, len(subset)), recipe.augment)
        feed = make_feed(self.images.train, subset, feed_config)
        rows = torch.zeros(len(self.images.train), dtype=torch.long, device=device)
        rows[subset] = torch.arange(len(subset), device=device)

        def losses(step: Step, number: int, epoch: int) -> Iterator[Tensor]:
            if train is None:
                x = self._embed(encoder, step.images, recipe.pool)
            else:
                x = train[rows[step.ids]]
            yield F.cross_entropy(head(world.gather(x)), world.gather(step.labels))

        optimizer = probe_optimizer(head, recipe)
        warm = round(recipe.warmup_epochs * feed.steps)
        scheduler = cosine(optimizer, recipe.epochs * feed.steps, warm)
        job = Job("probe", head, optimizer, scheduler, feed, recipe.epochs, losses, replicated=True)
        fit(job, self.session)
        head.eval()
        with torch.no_grad():
            return 100.0 * float((head(test[0]).argmax(1) == test[1]).float().mean())


@dataclass
class _FinetuneLoss:
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


def _probe_head(width: int, classes: int, session: Session) -> nn.Module:
    """Batch norm without affine parameters and a linear layer of std 0.01 (main_linprobe.py)."""
    linear = nn.Linear(width, classes)
    generator = session.streams.generator("probe", "head")
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear).to(session.device)


def knn_vote(
    queries: Tensor, train: tuple[Tensor, Tensor], vote: tuple[int, float], classes: int
) -> Tensor:
    """Classes [Q] of queries [Q, D]: the k nearest by cosine vote with weight exp(similarity / T).

    ``vote`` is (k, T). Source of the rule: Wu et al., arXiv 1805.01978; DINO's eval_knn.py.
    """
    features, labels = train
    k, temperature = min(vote[0], len(labels)), vote[1]
    similarity = F.normalize(queries, dim=1) @ F.normalize(features, dim=1).T
    nearest, index = similarity.topk(k, dim=1)
    votes = torch.zeros(len(queries), classes, device=queries.device)
    weights = ((nearest - nearest[:, :1]) / temperature).exp()  # the first is the nearest
    votes.scatter_add_(1, labels[index], weights)
    return votes.argmax(1)
