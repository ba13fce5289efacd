"""Masked Token Optimization around any method with mask tokens. The only stateful file of MTO.

A reconstruction of Choi et al., ECCV 2024, arXiv 2404.08330; see README.md. Shape letters: B
images, b of them read by the losses, T tokens of a layer, N patches, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor

from bench.api import (
    Batch,
    GeneratorFor,
    MaskEmbedding,
    Method,
    MethodOutput,
    TokenHook,
    TokenLayer,
    TokenPlan,
)
from bench.api.wrapper import NOISE_OFFSET, Wrapper
from bench.errors import RunError, UsageError
from mto import losses
from mto.affinity import sample_heads, sample_images
from mto.config import MTOConfig
from mto.depth import e_layers, entry_layers, r_schedule, rank_layers, read_layers, spa_layers
from mto.predict import chosen_patches, share_now
from mto.reading import View, heterogeneity, leak, view, weight_received
from mto.recalibration import exclusion_bias, recalibration_bias


def with_mto(method: Method, config: MTOConfig) -> Method:
    """``method`` with Masked Token Optimization; refused where no token reads a mask token."""
    return MTO(method, config)


class MTO(Wrapper):
    """A method whose forward pass is that of ``base``, observed and biased through its hook.

    Parameters are those of ``base`` and no more, in its order, named with the prefix ``base.``.
    """

    config: MTOConfig

    def __init__(self, method: Method, config: MTOConfig) -> None:
        super().__init__(method, config)
        if self.asks_only and config.acts:
            name = type(method).__name__
            raise UsageError(
                f"no token reads a mask token of {name}, so there is no layer for mto's "
                f"{', '.join(t for t in config.terms if t != 'init')} to act on: compare {name} "
                "with its baseline, or give mto the term init alone."
            )

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """The method's output, with the weighted losses added to ``penalty``."""
        if not self.config.acts:
            return self.method(batch, hook)
        observed = _Pass(self.config, batch, hook)
        return observed.added_to(self.method(batch, observed))

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises the base from its own streams, then the mask tokens from ``mto.<name>``."""
        self.method.reset_parameters(generator_for)
        if self.config.init != "distinct":
            return
        for name, token in self.method.mask_tokens().items():
            generator = generator_for(f"mto.{name}")
            drawn = torch.randn(token.shape, generator=generator, device=generator.device)
            with torch.no_grad():
                token.copy_(drawn * self.config.init_std)


_Streams = dict[str, list[Tensor]]
"""What was measured in the layers of each stream, in order of depth."""


def _name(stream: str, index: int) -> str:
    """``0``, or ``pixel.0`` where a method has several streams of layers."""
    return f"{stream}.{index}" if stream else str(index)


class _Pass:
    """The hook of one forward pass: returns biases, collects losses, serves an outer hook."""

    def __init__(self, config: MTOConfig, batch: Batch, outer: TokenHook | None) -> None:
        self.config = config
        self.outer = outer
        self.size = batch.hidden.shape[0]
        self.device = batch.hidden.device
        self.noise = batch.noise
        self._batch = batch  # read where needed: a compiler takes a number read for a constant
        self.r: dict[str, float] = {}
        self.distances: list[Tensor] = []
        self.leaks: _Streams = {}
        self.initial: _Streams = {}
        self.ranked: _Streams = {}
        self.asked = False
        self._closed: set[str] = set()
        self._sites = _Sites(torch.empty(0), 0, config)

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> TokenPlan | None:
        """What may be left out: nothing where all is to be seen and predicted as ever."""
        self.asked = True
        entry = entry_layers(self.config, layers)
        closed = self._close(layers - entry, stream)
        predicted = self._predicted(hidden)
        if not any(closed) and not entry and predicted is None:
            return None
        return TokenPlan(closed=closed, predicted=predicted, entry=entry)

    def _close(self, layers: int, stream: str) -> tuple[bool, ...]:
        """Layers whose masked tokens nobody reads: r = 0 in all rows, and nothing to measure."""
        config = self.config
        if self.outer is not None or not config.closes:
            return (False,) * layers
        schedule, read = (
            r_schedule(config, layers, self._batch.progress),
            read_layers(config, layers),
        )
        closed = tuple(r == 0 and layer not in read for layer, r in enumerate(schedule))
        self.r |= {_name(stream, layer): r for layer, r in enumerate(schedule) if closed[layer]}
        self._closed |= {_name(stream, layer) for layer in range(layers) if closed[layer]}
        if spared := [layer for layer in spa_layers(config, layers) if closed[layer]]:
            nought = torch.zeros(len(self._images), device=self.device)
            self.leaks[stream] = [nought] * len(spared)
        return closed

    def _predicted(self, hidden: Tensor) -> Tensor | None:
        """Hidden patches to predict, [B, N]; None for all."""
        share = share_now(self.config, self._batch.progress)
        if share == 1 or self.noise is None:
            return None
        draws = self.noise.uniform(hidden.shape[1], offset=NOISE_OFFSET + 2)
        return chosen_patches(draws, hidden, share)

    def embedding(self, embedding: MaskEmbedding) -> Tensor | None:
        """Measures the mask token where it enters the model; an outer hook may replace it."""
        if self.config.lambda_dist:
            form = self.config.distance
            distance = losses.token_distance(embedding.tokens, embedding.mask_token, form)
            self.distances.append(losses.distance_loss(distance, self.config.dist_margin))
        return None if self.outer is None else self.outer.embedding(embedding)

    def attention(self, layer: TokenLayer) -> Tensor | None:
        """Recalibrates one layer and measures it; the outer hook sees it recalibrated."""
        schedule = r_schedule(self.config, layer.count, self._batch.progress)
        name = _name(layer.stream, layer.index)
        self.r[name] = schedule[layer.index]
        if layer.hidden is not self._sites.hidden:
            self._sites = _Sites(layer.hidden, layer.prefix, self.config)
        bias = self._recalibration(layer)
        wanted = self.config.reads_attention and name not in self._closed
        if wanted and len(self._images):
            self._measure(layer, bias)
        if self.outer is None:
            return bias
        return _sum(bias, self.outer.attention(replace(layer, bias=_sum(layer.bias, bias))))

    @property
    def _share(self) -> float:
        return self.config.sample_images if self.noise is not None else 1.0

    @cached_property
    def _draws(self) -> Tensor:
        """Two uniform draws an image [B, 2], for images and heads; asked for with a stream only."""
        assert self.noise is not None
        return self.noise.uniform(2, offset=NOISE_OFFSET)

    @cached_property
    def _images(self) -> Tensor:
        if self._share == 1:
            return torch.arange(self.size, device=self.device)
        return sample_images(self._draws[:, 0], self._share)

    def _recalibration(self, layer: TokenLayer) -> Tensor | None:
        r, dtype = self.r[_name(layer.stream, layer.index)], layer.query.dtype
        if r == 1:
            return None
        if self.config.recalibration == "bias":
            return self._sites.bias(r, dtype)
        everything = torch.arange(self.size, device=self.device)
        config = self.config
        received = weight_received(config, layer, self._sites.view(everything))
        shut = 1 - r
        return exclusion_bias(received, layer.hidden, shut, dtype, config.rows, config.keep_self)

    def _measure(self, layer: TokenLayer, bias: Tensor | None) -> None:
        config, index, count = self.config, layer.index, layer.count
        at = self._sites.view(self._images)
        if index in spa_layers(config, count):
            self.leaks.setdefault(layer.stream, []).append(self._leak(layer, at, bias))
        initial, ranked = index in e_layers(config, count), index in rank_layers(config, count)
        if initial or ranked:
            measured = heterogeneity(config, layer, at)
            for wanted, kept in ((initial, self.initial), (ranked, self.ranked)):
                if wanted:
                    kept.setdefault(layer.stream, []).append(measured)

    def _leak(self, layer: TokenLayer, at: View, bias: Tensor | None) -> Tensor:
        if self.r[_name(layer.stream, layer.index)] == 0 and self.config.shuts_spa_out:
            return torch.zeros(len(at.images), device=self.device)
        count, wanted = layer.query.shape[1], self.config.sample_heads
        few = 0 < wanted < count and self.noise is not None
        heads = sample_heads(self._draws[at.images, 1], count, wanted) if few else None
        return leak(self.config, layer, at, bias, heads)

    def added_to(self, output: MethodOutput) -> MethodOutput:
        """``output`` with the weighted losses in ``penalty`` and each loss in ``terms``.

        Raises:
            RunError: if the method showed no layer though the configuration needs them.
        """
        config = self.config
        if (config.reads_attention or config.recalibrates) and not self.r:
            raise RunError("the method called no attention hook, so mto can read no layer.")
        if config.leaves_out and not self.asked:
            raise RunError("the method asks for no plan, so mto can leave no token out of it.")
        measured = self._measured()
        terms = {f"mto.{name}": value.detach() for name, value in measured.items()}
        if config.recalibrates:
            terms |= {f"mto.schedule.{i}": torch.tensor(r) for i, r in self.r.items()}
        penalty = output.penalty
        for name, value in measured.items():
            penalty = _sum(penalty, getattr(config, f"lambda_{name}") * value)
        return replace(output, penalty=penalty, terms={**output.terms, **terms})

    def _measured(self) -> dict[str, Tensor]:
        """Each loss that is on, estimated for the mean over all images of the batch."""
        config, found = self.config, {}
        if config.lambda_dist and self.distances:
            found["dist"] = torch.stack(self.distances).mean()
        if config.lambda_spa:
            found["spa"] = self._estimate(
                self.leaks, partial(losses.spa_loss, sign=config.spa_sign)
            )
        if config.lambda_e:
            initial = partial(losses.initial_loss, sign=config.e_sign)
            found["e"] = self._estimate(self.initial, initial)
        if config.lambda_r:
            ranking = partial(
                losses.ranking_loss,
                margin=config.rank_margin,
                form=config.rank_form,
                sign=config.rank_sign,
            )
            found["r"] = self._estimate(self.ranked, ranking)
        return found

    def _estimate(self, streams: _Streams, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over streams and all B images, unbiased: one read stands for 1 / share of them."""
        if not streams:
            return torch.zeros((), device=self.device)
        each = [loss(torch.stack(layers)).sum() for layers in streams.values()]
        return sum(each[1:], each[0]) / (len(each) * self._share * self.size)


class _Sites:
    """What follows from ``hidden`` [B, T] alone, computed once for all layers that share it."""

    def __init__(self, hidden: Tensor, prefix: int, config: MTOConfig) -> None:
        self.hidden = hidden
        self.prefix = prefix
        self.config = config
        self._biases: dict[float, Tensor] = {}
        self._views: dict[int, View] = {}

    def bias(self, r: float, dtype: torch.dtype) -> Tensor:
        """Recalibration bias [B, 1, T, T] at r."""
        if r not in self._biases:
            rows, keep_self = self.config.rows, self.config.keep_self
            self._biases[r] = recalibration_bias(self.hidden, r, dtype, rows, keep_self)
        return self._biases[r]

    def view(self, images: Tensor) -> View:
        """Positions to read of the chosen images [b]."""
        if len(images) not in self._views:
            self._views[len(images)] = view(self.hidden, self.prefix, images)
        return self._views[len(images)]


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
