"""Settings of Masked Token Optimization: every reading and its alternatives. No torch here.

Source: Choi et al., "Emerging Property of Masked Token for Effective Pre-training", ECCV 2024,
arXiv 2404.08330, known to this project through its abstract and third-party summaries only. This
is a reconstruction: each field below is a reading, and README.md says what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.api.rules import Amount, Layers, Part, Positive, Ruled, Share, SomeLayers
from bench.errors import UsageError, unknown

TERMS = ("init", "dist", "recal", "spa", "e", "r")
"""The parts that can be switched singly, in the order in which labels name them.

By default ``recal`` is on: one of two that led the last screen in docs/tuning/readings.md, where
the losses added nothing. ``all`` stands for every part, as the paper has it.
"""

OURS = ("share", "late")
"""Parts beyond the paper, off unless they are named."""

ALL = "all"

Rows = Literal["visible", "masked", "all"]
"""Which rows of an attention map a setting is about."""

_SWITCH: dict[str, dict[str, tuple[Any, Any]]] = {
    "init": {"init": ("baseline", "distinct")},
    "dist": {"lambda_dist": (0.0, 0.1)},
    "recal": {"recalibration": ("none", "bias"), "r_first": (1.0, 0.0), "r_depth": (0.0, 1.0)},
    "spa": {"lambda_spa": (0.0, 0.1)},
    "e": {"lambda_e": (0.0, 0.1)},
    "r": {"lambda_r": (0.0, 0.1)},
    "share": {"predict_share": (1.0, 0.5)},
    "late": {"enter_depth": (0.0, 0.5)},
}
"""Fields of each term with their values (off, on); the first field alone switches it off."""


@dataclass(frozen=True, kw_only=True)
class MTOConfig(Ruled, section="mto"):
    """Masked Token Optimization around an unchanged method. Layers are counted from the input.

    Attributes:
        init: ``distinct`` draws the mask token from N(0, ``init_std``²), far outside the patch
            embeddings (data singularity); ``baseline`` keeps the method's own initialisation.
        init_std: Standard deviation of the distinct initialisation.
        lambda_dist: Weight of the margin loss on the mask token's distance from the patches.
        distance: Unit of that distance, an image's spread of patch embeddings: per dimension
            (``standardised``) or over all dimensions together (``isotropic``).
        dist_margin: Distance, in that unit, from which the margin loss is 0.
        recalibration: ``bias`` adds log r to what ``rows`` see of masked columns; ``exclude``
            drops the share 1 - r of masked columns that those rows attend to least; ``none``
            leaves recalibration to L_spa.
        rows: Rows that are recalibrated: ``visible`` ones (the class token among them), ``masked``
            ones, or ``all``.
        keep_self: Whether a recalibrated masked row keeps the weight on its own column.
        r_first: r of the first layer, in [0, 1]; 0 shuts masked columns out.
        r_shape: ``step`` keeps ``r_first`` over the affected layers, ``linear`` rises to 1.
        r_depth: Share of the layers, from the first, in which r may be below 1.
        r_time: r over the run: ``constant``, ``rising`` to 1 at its end (recalibration fades), or
            ``falling`` from 1 at its beginning.
        affinity: S read from attention logits q·k/√d, or from ``tokens``, x·x/√D.
        heads: ``average`` logits over heads before the softmax, or measure ``each`` and average.
        heterogeneity: H as ``entropy`` of masked rows over visible columns, or ``cosine`` distance.
        tau: Temperature of that entropy; at 1 it is nearly saturated.
        lambda_spa: Weight of L_spa.
        spa_form: ``mass`` that ``spa_rows`` give to masked columns other than their own, or the
            ``row_entropy`` of those rows.
        spa_rows: Rows that L_spa reads: ``visible``, ``masked`` or ``all`` patches.
        spa_columns: Columns of that entropy: ``all``, or the ``visible`` patches.
        spa_sign: Whether L_spa makes what it reads ``low`` or ``high``.
        spa_layers: Layers L_spa reads, evenly spaced over the depth; 0 reads all.
        lambda_e: Weight of L_e.
        e_layers: Number of first layers in which L_e acts on H.
        e_sign: Whether L_e makes H ``high`` or ``low`` there.
        lambda_r: Weight of L_r.
        rank_form: L_r over ``adjacent`` layers or over all ``pairwise`` combinations.
        rank_margin: H has to fall by this much from one ranked layer to the next.
        rank_sign: Whether H has to be ``falling`` or ``rising`` over depth.
        rank_layers: Layers L_r ranks, evenly spaced from the last of ``e_layers`` to the last
            of all; 0 ranks all of them.
        sample_images: Share of the images that the attention losses read, drawn from each
            image's own stream; all of them where a batch brings no stream.
        sample_heads: Heads an image lends to L_spa when ``heads`` is ``each``; 0 is all.
        predict_share: Ours: share of the hidden patches carried and predicted, drawn for each
            image and step from the image's own stream; all of them where a batch brings none.
        predict_time: Ours: that share over the run, ``constant`` or ``rising`` to 1 at its end.
        enter_depth: Ours: share of the layers, from the first, that mask tokens skip.
    """

    init: Literal["distinct", "baseline"] = "baseline"
    init_std: Amount = 0.3
    lambda_dist: Amount = 0.0
    distance: Literal["standardised", "isotropic"] = "standardised"
    dist_margin: Positive = 3.0
    recalibration: Literal["bias", "none", "exclude"] = "bias"
    rows: Rows = "masked"
    keep_self: bool = False
    r_first: Share = 0.0
    r_shape: Literal["step", "linear"] = "step"
    r_depth: Share = 1.0
    r_time: Literal["constant", "rising", "falling"] = "constant"
    affinity: Literal["logits", "tokens"] = "logits"
    heads: Literal["average", "each"] = "average"
    heterogeneity: Literal["entropy", "cosine"] = "entropy"
    tau: Positive = 0.1
    lambda_spa: Amount = 0.0
    spa_form: Literal["mass", "row_entropy"] = "mass"
    spa_rows: Rows = "visible"
    spa_columns: Literal["all", "visible"] = "all"
    spa_sign: Literal["low", "high"] = "low"
    spa_layers: SomeLayers = 0
    lambda_e: Amount = 0.0
    e_layers: Layers = 1
    e_sign: Literal["high", "low"] = "high"
    lambda_r: Amount = 0.0
    rank_form: Literal["adjacent", "pairwise"] = "adjacent"
    rank_margin: Amount = 0.01
    rank_sign: Literal["falling", "rising"] = "falling"
    rank_layers: SomeLayers = 0
    sample_images: Part = 0.25
    sample_heads: SomeLayers = 0
    predict_share: Part = 1.0
    predict_time: Literal["constant", "rising"] = "constant"
    enter_depth: Share = 0.0

    def __post_init__(self) -> None:
        """Rejects values out of range before anything is queued.

        Raises:
            UsageError: naming the field and its range.
        """
        super().__post_init__()
        if self.sample_heads and self.heads == "average":
            raise UsageError("mto.sample_heads needs mto.heads=each: an average takes all heads.")
        if self.spa_columns == "visible" and self.spa_form == "mass":
            raise UsageError("mto.spa_columns=visible needs mto.spa_form=row_entropy.")

    def check_layers(self, layers: int, heads: int) -> None:
        """Refuses more layers or heads than there are.

        Raises:
            UsageError: naming the setting.
        """
        for name, most in (
            *((name, layers) for name in ("spa_layers", "e_layers", "rank_layers")),
            ("sample_heads", heads),
        ):
            if getattr(self, name) > most:
                what = "heads" if name == "sample_heads" else "layers that carry mask tokens"
                raise UsageError(
                    f"mto.{name}={getattr(self, name)}, but there are {most} {what}. "
                    f"Set at most mto.{name}={most}."
                )

    @property
    def recalibrates(self) -> bool:
        """Whether any layer may have r below 1."""
        return self.recalibration != "none" and self.r_first < 1 and self.r_depth > 0

    @property
    def closes(self) -> bool:
        """Whether in layers with r = 0 no row reads any masked token."""
        return self.rows == "all" and not self.keep_self and self.recalibration == "bias"

    @property
    def shuts_spa_out(self) -> bool:
        """Whether r = 0 leaves the rows that L_spa reads no mass on masked columns."""
        return self.spa_form == "mass" and self.rows in ("all", self.spa_rows)

    @property
    def reads_attention(self) -> bool:
        """Whether any loss reads the layers."""
        return self.lambda_spa > 0 or self.lambda_e > 0 or self.lambda_r > 0

    @property
    def acts(self) -> bool:
        """Whether a forward pass differs from the bare method's in any way."""
        return any(term != "init" for term in self.terms)

    @property
    def leaves_out(self) -> bool:
        """Whether mask tokens are left out of a pass or of layers, which a method has to know."""
        return self.predict_share < 1 or self.enter_depth > 0

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that are on."""
        on = {
            "init": self.init == "distinct",
            "dist": self.lambda_dist > 0,
            "recal": self.recalibrates,
            "spa": self.lambda_spa > 0,
            "e": self.lambda_e > 0,
            "r": self.lambda_r > 0,
            "share": self.predict_share < 1,
            "late": self.enter_depth > 0,
        }
        return tuple(term for term in (*TERMS, *OURS) if on[term])

    @property
    def switched(self) -> dict[str, Any]:
        """The settings of the terms that are on, and what else differs from its default."""
        on = {field for term in self.terms for field in _SWITCH[term]}
        on |= {"rows", "keep_self"} if self.recalibrates else set()
        plain = type(self)()
        return {
            name: value
            for name, value in vars(self).items()
            if name in on or value != getattr(plain, name)
        }

    @property
    def label(self) -> str:
        """Suffix in row names: empty for the default set of terms, else ``(recal)``, ``(all)``."""
        if self.terms == type(self)().terms:
            return ""
        whole = set(TERMS) <= set(self.terms)
        names = (ALL, *(t for t in self.terms if t in OURS)) if whole else self.terms
        return f"({','.join(names) or 'off'})"

    def with_terms(self, names: Iterable[str]) -> MTOConfig:
        """The configuration with exactly the named terms on; no names switch everything off.

        A term that is on keeps its settings; one that is off comes on at its starting values.

        Raises:
            UsageError: for a name that is none of :data:`TERMS`, :data:`OURS` and :data:`ALL`.
        """
        wanted = set(names)
        for name in sorted(wanted - {*TERMS, *OURS, ALL}):
            raise unknown("mto term", name, [*TERMS, *OURS, ALL])
        wanted |= set(TERMS) if ALL in wanted else set()
        changes: dict[str, Any] = {}
        for term, switch in _SWITCH.items():
            if term in wanted:
                changes |= {f: on for f, (off, on) in switch.items() if getattr(self, f) == off}
            else:
                field, (off, _) = next(iter(switch.items()))
                changes[field] = off
        return replace(self, **changes)

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Settings for the conformance suite: every image is read, so that no draw is left."""
        return {"sample_images": 1.0}

    @classmethod
    def only(cls, names: Iterable[str]) -> MTOConfig:
        """The default configuration with exactly the named terms on.

        Raises:
            UsageError: for an unknown name.
        """
        return cls().with_terms(names)
