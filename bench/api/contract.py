"""The contract between the harness, the methods and the plug-ins.

Importable without torch. Shape letters: B images, T tokens of a layer (prefix included),
N patches, D width, H heads, d width of a head, C channels.

A *method* masks patches and turns a batch into a loss. While it runs it offers, through a
:class:`TokenHook`, the two places at which a plug-in may act on mask tokens: the initial
embedding, and the attention of each layer that carries mask tokens. A *plug-in* wraps a method
and is itself a method; it never reaches into a method's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from bench.api.rules import Layers, Range, Ruled, Width

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class VisionShape(Ruled, section="model"):
    """Size of a vision transformer encoder (widths in channels, image and patch in pixels)."""

    image_size: Width
    patch_size: Width
    channels: Annotated[int, Range(1, 16)] = 3
    width: Width
    depth: Layers
    heads: Layers
    mlp_ratio: Annotated[float, Range(0, 64, "high")] = 4.0

    @property
    def name(self) -> str:
        """Short name, such as ``ViT 48x4 /2 8px``: width x depth, patch, image."""
        return f"ViT {self.width}x{self.depth} /{self.patch_size} {self.image_size}px"

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """N, the number of patches of an image."""
        return self.grid**2


class SampleStream(Protocol):
    """Counter-based random numbers, one independent stream for each of B samples."""

    @property
    def size(self) -> int:
        """B, the number of samples."""
        ...

    def uniform(self, count: int, offset: int = 0) -> Tensor:
        """Uniform floats in [0, 1), [B, count]: draws ``offset`` to ``offset + count - 1``."""
        ...


@dataclass(frozen=True)
class Batch:
    """What a method sees of one step.

    ``images`` [B, C, S, S] are normalised; ``hidden`` [B, N] is True where the model sees no
    pixels; ``noise`` holds the B samples' random draws of this step: drop path takes the first
    ones, a plug-in those from 1 << 20 on. It is None where nothing is to be random. ``progress``
    is the share of the run's steps done before this one, in [0, 1). ``view`` [B, C, S, S] shows
    the same crops in other colours, for methods that ask for it (:class:`Needs`), else None.
    ``step`` is one stream [1] for the whole step, the same in all its micro-batches and processes,
    for what a plug-in draws once a step; None where nothing is to be random. ``most`` patches are
    hidden in an image where a plug-in made the step's masks (:func:`masks_at`): they may be more or
    fewer than the method's own. It is 0 where the masks are those that the method drew.
    """

    images: Tensor
    hidden: Tensor
    noise: SampleStream | None = None
    progress: float = 0.0
    view: Tensor | None = None
    step: SampleStream | None = None
    most: int = 0


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """How a second view of a crop changes its colours, each image by draws of its own.

    In this order: with chance ``jitter_p`` brightness, contrast, saturation and hue, in a random
    order, by up to the four values of ``jitter`` (``ColorJitter``); grey with ``grey_p``; with
    ``blur_p`` a Gaussian blur of a standard deviation within ``blur_radius`` pixels; with
    ``solarise_p`` the brighter half of the levels inverted. A grey image has no saturation or hue.
    """

    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    grey_p: float = 0.0
    blur_p: float = 0.0
    blur_radius: tuple[float, float] = (0.1, 2.0)
    solarise_p: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method or plug-in needs of a batch beyond images and masks.

    One that needs something says so on its configuration, as the attribute ``needs``, so that
    a plan can be refused before anything is computed, and so that plug-ins need not pass it on.

    ``view`` asks for :attr:`Batch.view`. ``together`` images at a time enter the loss together,
    because it reads statistics over them (a batch norm): the harness then cuts a batch into
    micro-batches and processes between such groups of consecutive images only, so that the loss
    is that of the whole batch; 0 is the whole batch, which then cannot be cut. ``setting`` is the
    name of what decides that number, for messages.

    A plug-in may ask for ``masks`` masks of an image in one step (:func:`masks_at` makes them): the
    image then stands in the batch so many times in turn, with draws of its own each time. It counts
    as often: the batch holds fewer images, and the epochs of a budget are effective ones.
    """

    view: Photometric | None = None
    together: int = 1
    setting: str = ""
    masks: int = 1


def needs_of(config: object) -> Needs:
    """The needs that a method's or plug-in's configuration states; none if it states none."""
    needs: Needs = getattr(config, "needs", Needs())
    return needs


@dataclass(frozen=True)
class MethodOutput:
    """Result of one forward pass.

    ``loss`` is a mean over the hidden patches of the batch (weight it by ``hidden.sum()`` when
    batches are added up), or over those that a plan lets it predict; ``penalty`` is a mean over the
    images, or None; ``terms`` are detached values for the log; ``prediction`` is the method's own
    output, kept for pictures and tests.
    """

    loss: Tensor
    penalty: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    prediction: Tensor | None = None


@dataclass(frozen=True)
class MaskEmbedding:
    """The initial embedding at which mask tokens replace patches.

    ``tokens`` [B, N', D] are the embeddings of real patches (N' = N at an encoder input, the
    visible ones at a decoder input, none where mask tokens enter beside no patch), before positions
    are added; ``mask_token`` [1, 1, D] enters at
    the hidden patches of ``hidden`` [B, N], M of them at most in an image. ``stream``
    names the stack of layers that they enter, where a method has several.
    """

    tokens: Tensor
    mask_token: Tensor
    hidden: Tensor
    stream: str = ""


@dataclass(frozen=True)
class TokenLayer:
    """One layer that carries mask tokens, as seen just before its attention is computed.

    ``query`` and ``key`` are [B, H, T, d]; ``tokens`` [B, T, D] is what the attention reads;
    ``hidden`` [B, T] is True for mask tokens and False for the ``prefix`` tokens (class token).
    ``bias`` is the layer's own additive attention bias, broadcastable to [B, H, T, T], or None.
    ``stream`` names the layer's stack, where a method has several (two decoders): ``index`` and
    ``count`` are those within the stack. Cross-attention in which mask tokens only ask, and no
    mask token is a key, is not shown.
    """

    index: int
    count: int
    tokens: Tensor
    query: Tensor
    key: Tensor
    hidden: Tensor
    prefix: int
    scale: float
    bias: Tensor | None = None
    stream: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """What a pass may leave out, said before any of its layers runs; by default nothing.

    ``closed`` says of each layer that carries mask tokens whether every row's weight on masked
    tokens is nought there. The method then need not compute their keys and values, nor show the
    layer to the hook; if it does show it, the hook's bias says the same.

    The rest changes what is computed, so a method that asks for a plan must follow it.
    ``predicted`` [B, N] are the hidden patches to carry and predict, None for all: the loss is then
    a mean over them. ``entry`` layers are run without mask tokens, which enter behind them:
    ``closed`` is of those left, and a :class:`TokenLayer` counts them alone.
    """

    closed: tuple[bool, ...] = ()
    predicted: Tensor | None = None
    entry: int = 0


class TokenHook(Protocol):
    """What a plug-in or a probe hands to a method's forward pass."""

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> TokenPlan | None:
        """Called once a pass and stream, before its ``layers`` layers that carry mask tokens.

        ``hidden`` [B, N] are the pass's masks. A method that can leave nothing out need not ask.
        """
        ...

    def embedding(self, embedding: MaskEmbedding) -> Tensor | None:
        """Called once a pass and mask token, where it enters the model.

        Returns what enters in its place, [B, M, D]: an image's hidden patches in raster order, then
        values that are not read where it hides fewer than M. None leaves the mask token.
        """
        ...

    def attention(self, layer: TokenLayer) -> Tensor | None:
        """Called once a layer that carries mask tokens.

        Returns an additive bias broadcastable to [B, H, T, T], or None to leave it alone.
        """
        ...


GeneratorFor = Callable[[str], "torch.Generator"]
"""Maps a parameter's name to the generator that initialises it."""


class Method(Protocol):
    """A masked-image-modelling method: an ``nn.Module`` with the calls below."""

    shape: VisionShape

    def __call__(self, batch: Batch, hook: TokenHook | None = None) -> MethodOutput:
        """Loss of one batch; ``hook`` sees the mask tokens."""
        ...

    def reset_parameters(self, generator_for: GeneratorFor) -> None:
        """Initialises every parameter from its own named stream."""
        ...

    def draw_hidden(self, stream: SampleStream) -> Tensor:
        """Masks [B, N], True where hidden, from per-sample streams."""
        ...

    def mask_tokens(self) -> Mapping[str, nn.Parameter]:
        """The mask tokens by parameter name, each [1, 1, D], one for each stream of layers."""
        ...

    def no_weight_decay(self) -> set[str]:
        """Names of parameters of two or more dimensions that are not decayed."""
        ...

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after optimizer step ``step`` (from 0) of ``total_steps``; EMA teachers move."""
        ...

    def encoder(self) -> nn.Module:
        """The encoder that evaluation receives, its state under timm's names."""
        ...

    def classifier(self, options: ClassifierOptions) -> Classifier:
        """A fresh classifier on this method's encoder architecture, weights not yet loaded."""
        ...


def masks_at(
    method: object, hidden: Tensor, noise: SampleStream | None, step: SampleStream | None
) -> Tensor:
    """What a step of training hides, [B, N], where its images' own masks are ``hidden`` [B, N].

    A plug-in that changes masks with the step says how in its method of this name; ``noise`` and
    ``step`` are the batch's. Where all images hid the same number they still must. The same tensor
    returned means that the masks are the method's own. Measurements on fixed images, and the count
    of a pass's operations, keep the method's own masks.
    """
    change = getattr(method, "masks_at", None)
    return hidden if change is None else change(hidden, noise, step)


def asks_only(method: object) -> bool:
    """Whether no token reads a mask token: they ask, beside no patch, and no layer is shown.

    A method says so by its attribute of this name; a plug-in that acts on layers refuses it.
    """
    return bool(getattr(method, "asks_only", False))


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """How fine-tuning builds its model: classes, drop path rate and pooling (``mean``/``cls``)."""

    classes: int
    drop_path: float = 0.0
    pool: str = "mean"


class Classifier(Protocol):
    """A plain ViT with a head, weights under timm's names: an ``nn.Module``."""

    def __call__(self, images: Tensor, noise: SampleStream | None = None) -> Tensor:
        """Class logits [B, K] of normalised images [B, C, S, S]."""
        ...

    def features(self, images: Tensor, pool: str) -> Tensor:
        """Features [B, D] of the frozen encoder, ``cls`` or ``mean`` over patches.

        ``tokens`` asks for those of all patches, [B, N, D].
        """
        ...

    def load_encoder(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the state of the method's encoder; the head keeps its values."""
        ...

    def no_weight_decay(self) -> set[str]:
        """Names of parameters of two or more dimensions that fine-tuning does not decay."""
        ...

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """Parameter-name patterns by depth, in timm's form, for layer decay."""
        ...


class Sink(Protocol):
    """A tracker of one run, made as ``sink(folder, config)``: run folder, plain configuration."""

    def log(self, values: Mapping[str, Any]) -> None:
        """Takes one logged line: ``stage``, ``epoch``, ``step`` and what was measured."""
        ...

    def close(self) -> None:
        """The run has ended, for now."""
        ...
