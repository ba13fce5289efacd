"""Attentive probe: a learned query reads the frozen patch tokens, a linear layer what it found.

Masked image modelling leaves its knowledge in the patches more than in their mean or in the class
token; the pooling of AIM (arXiv 2401.08541): batch norm without affine parameters, one query a
head, keys and values from the tokens, no projection behind. B images, N patches, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.api.rules import Amount, Count, Epochs, Natural, Ruled
from bench.errors import UsageError
from bench.evaluate.task import Score, scored
from bench.plan.sections import peak_lr

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api import VisionShape
    from bench.data.batch import Step
    from bench.evaluate.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class AttentiveConfig(Ruled, section="attentive"):
    """AdamW on the query, the keys, the values and the classifier; ``heads`` 0: the encoder's."""

    epochs: Epochs = 100
    batch_size: Count = 1024
    blr: Amount = 2.5e-4
    lr_batch: Count = 256
    warmup_epochs: Amount = 5.0
    weight_decay: Amount = 0.1
    heads: Natural = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def check_model(self, model: VisionShape) -> None:
        """Refuses heads that do not share the width of the encoder evenly.

        Raises:
            UsageError: naming both.
        """
        heads = self.heads or model.heads
        if model.width % heads:
            raise UsageError(f"attentive.heads={heads} do not divide model.width={model.width}.")


def attentive(encoder: Encoder, recipe: AttentiveConfig) -> Score:
    """A head on the images whose labels may be seen (``data.labels``), trained as a linear probe.

    Several processes share the encoder's work; each then trains the same head on the whole batch.

    Raises:
        UsageError: if the encoder has no tokens to read, or the heads do not divide its width.
    """
    import torch

    from bench.plan.sections import NOT_AUGMENTED
    from bench.train.loop import Job, fit
    from bench.train.optim import adamw, cosine

    recipe.check_model(encoder.config.model)
    world = encoder.session.world
    head = _head(encoder, recipe.heads or encoder.config.model.heads)
    feed = encoder.feed("attentive", encoder.labelled(), recipe.batch_size, NOT_AUGMENTED)

    def losses(step: Step, number: int, epoch: int) -> Iterator[Tensor]:
        x = world.gather(_tokens(encoder, step.images, recipe.precision))
        yield torch.nn.functional.cross_entropy(head(x), world.gather(step.labels))

    groups: list[Any] = [{"params": list(head.parameters()), "weight_decay": recipe.weight_decay}]
    optimizer = adamw(groups, peak_lr(recipe), (0.9, 0.999))
    warm = round(recipe.warmup_epochs * feed.steps)
    scheduler = cosine(optimizer, recipe.epochs * feed.steps, warm)
    job = Job(
        "attentive",
        head,
        optimizer,
        scheduler,
        feed,
        recipe.epochs,
        losses,
        on_epoch=encoder.logger("attentive"),
        replicated=True,
    )
    meter = fit(job, encoder.session)
    head.eval()
    read = lambda images: head(_tokens(encoder, images, recipe.precision))  # noqa: E731
    return scored(encoder.correct(read, "fp32"), meter.elapsed_s)


def _tokens(encoder: Encoder, images: Tensor, precision: str) -> Tensor:
    tokens = encoder.embed(images, "tokens", precision)
    if tokens.ndim != 3:
        raise UsageError(
            f"the encoder of '{encoder.config.method}' gives no features(images, 'tokens') of "
            "shape [B, N, D], which the attentive probe reads. Leave the task 'attentive' out."
        )
    return tokens


def _head(encoder: Encoder, heads: int) -> nn.Module:
    """The head, its first values from a stream of their own."""
    import torch
    from torch import nn

    class Head(nn.Module):
        """Tokens [B, N, D] to class logits [B, K]."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
            self.query = nn.Parameter(torch.zeros(heads, width // heads))
            self.read = nn.Linear(width, 2 * width, bias=False)
            self.linear = nn.Linear(width, encoder.classes)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
            key, value = self.read(x).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
            query = self.query[None, :, None].expand(len(x), -1, -1, -1)
            pooled = nn.functional.scaled_dot_product_attention(query, key, value)
            logits: Tensor = self.linear(pooled.flatten(1))
            return logits

    head = Head(encoder.config.model.width)
    for name, parameter in head.named_parameters():
        generator = encoder.streams.generator("attentive", name)
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    return head.to(encoder.device)
