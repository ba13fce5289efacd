"""What plug-ins are made of: a method around a method, and a hook that passes on. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from bench.api.contract import (
    Batch,
    Classifier,
    ClassifierOptions,
    GeneratorFor,
    MaskEmbedding,
    Method,
    MethodOutput,
    SampleStream,
    TokenHook,
    TokenLayer,
    TokenPlan,
    asks_only,
    masks_at,
)
from bench.errors import UsageError

NOISE_OFFSET = 1 << 20
"""First draw of a sample's stream that a plug-in may take: those before are drop path's."""


class PassOn:
    """The hook of one pass, which by itself does nothing but serve the hook outside of it."""

    def __init__(self, outer: TokenHook | None = None) -> None:
        self.outer = outer

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> TokenPlan | None:
        """The outer hook's plan."""
        return None if self.outer is None else self.outer.plan(layers, hidden, stream)

    def embedding(self, embedding: MaskEmbedding) -> Tensor | None:
        """The outer hook's replacements."""
        return None if self.outer is None else self.outer.embedding(embedding)

    def attention(self, layer: TokenLayer) -> Tensor | None:
        """The outer hook's bias."""
        return None if self.outer is None else self.outer.attention(layer)


class Wrapper(nn.Module):
    """A method that is ``base`` until a subclass says otherwise: what a plug-in derives from.

    Parameters are those of ``base`` and no more, in its order, named with the prefix ``base.``.
    A plug-in that acts on mask tokens returns a :class:`PassOn` of its own from :meth:`hook`.

    Raises:
        UsageError: if the method has no mask tokens.
    """

    def __init__(self, method: Method, config: Any) -> None:
        super().__init__()
        if not method.mask_tokens():
            base, own = type(method).__name__, type(self).__name__.lower()
            raise UsageError(f"{base} has no mask tokens, so {own} cannot wrap it.")
        self.base = cast(nn.Module, method)
        self.config = config
        self.shape, self.asks_only = method.shape, asks_only(method)

    @property
    def method(self) -> Method:
        """The wrapped method."""
        return cast(Method, self.base)

    def hook(self, batch: Batch, outer: TokenHook | None) -> TokenHook | None:
        """What watches the pass of ``batch``; by default what was handed in."""
        return outer

    def forward(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """The base's output, watched by :meth:`hook`."""
        return self.method(batch, self.hook(batch, hook))

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises the base from its own streams."""
        self.method.reset_parameters(generator_for)

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Masks [B, N] of the base."""
        return self.method.draw_hidden(stream)

    def masks_at(
        self, hidden: Tensor, noise: SampleStream | None, step: SampleStream | None
    ) -> Tensor:
        """What the base hides at a step, [B, N]; ``hidden`` unless a plug-in inside changes it."""
        return masks_at(self.method, hidden, noise, step)

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The base's mask tokens by their names here."""
        return {f"base.{name}": token for name, token in self.method.mask_tokens().items()}

    def no_weight_decay(self) -> set[str]:
        """The base's undecayed parameters by their names here."""
        return {f"base.{name}" for name in self.method.no_weight_decay()}

    def after_step(self, step: int, total_steps: int) -> None:
        """Passes the end of a step on to the base."""
        self.method.after_step(step, total_steps)

    def encoder(self) -> nn.Module:
        """The base's encoder; evaluation never sees a plug-in."""
        return self.method.encoder()

    def classifier(self, options: ClassifierOptions) -> Classifier:
        """The base's classifier; evaluation never sees a plug-in."""
        return self.method.classifier(options)
