"""What a setting may be: one word beside each field, held to wherever settings are made. No torch.

A field of a :class:`Ruled` class is annotated with a word from below, as ``flip: Share = 0.0``,
or with ``Annotated[float, Range(0, 4)]``. Booleans, literals and settings inside settings need no
word. A number is finite whatever its rule. :func:`unruled` names the fields that lack one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Protocol

from bench.errors import CONTROL, UsageError, shown

SHORT = 16
"""Up to this upper limit a message names both ends of a range."""

LONGEST_TEXT = 4096
"""Characters of a setting that is text, at most: a path's limit."""


class Rule(Protocol):
    """What a value beyond its type must fulfil."""

    def complaint(self, value: Any) -> str:
        """What it must do instead, as in 'must lie in [0, 1]'; '' if all is well."""
        ...


@dataclass(frozen=True)
class Range:
    """A number in [low, high], or without the ends that ``ends`` does not name.

    Both limits are given: what no machine can serve is refused when it is typed.
    """

    low: float
    high: float
    ends: Literal["both", "low", "high", "none"] = "both"

    def complaint(self, value: Any) -> str:
        """Names the limit that was passed, or a short range whole."""
        with_low, with_high = self.ends in ("both", "low"), self.ends in ("both", "high")
        above = value >= self.low if with_low else value > self.low
        below = value <= self.high if with_high else value < self.high
        if above and below:
            return ""
        low, high = f"{self.low:.12g}", f"{self.high:.12g}"
        if self.high > SHORT:
            lowest = f"must be at least {low}" if with_low else f"must be above {low}"
            return f"must be at most {high}" if above else lowest
        if self.ends in ("both", "none"):
            return (
                f"must lie in [{low}, {high}]" if with_low else f"must lie between {low} and {high}"
            )
        lowest = f"at least {low}" if with_low else f"above {low}"
        return f"must be {lowest} and {'at most' if with_high else 'below'} {high}"


@dataclass(frozen=True)
class Text:
    """Text that matches ``pattern`` as a whole; ``wanted`` says in words what that is."""

    pattern: str
    wanted: str

    def complaint(self, value: Any) -> str:
        """Says what is wanted."""
        return "" if re.fullmatch(self.pattern, value) else f"must be {self.wanted}"


@dataclass(frozen=True)
class Rising:
    """A list whose values rise; ``equal`` neighbours are allowed if it says so."""

    equal: bool = False

    def complaint(self, value: Any) -> str:
        """Says that they rise."""
        pairs = itertools.pairwise(value)
        fine = all(a <= b if self.equal else a < b for a, b in pairs)
        return "" if fine else "must rise from value to value"


@dataclass(frozen=True)
class Length:
    """A list of at least ``low`` and at most ``high`` values."""

    low: int
    high: int

    def complaint(self, value: Any) -> str:
        """Names the limits."""
        fine = self.low <= len(value) <= self.high
        return "" if fine else f"must hold {self.low} to {self.high} values"


Share = Annotated[float, Range(0, 1)]
"""A share or probability, both ends included."""

Inside = Annotated[float, Range(0, 1, "none")]
"""A share that is neither nothing nor all, as a mask ratio."""

Part = Annotated[float, Range(0, 1, "high")]
"""A share above nothing, as that of an image a crop keeps."""

Decay = Annotated[float, Range(0, 1, "low")]
"""A share below all, as Adam's betas or a rate of dropping."""

Amount = Annotated[float, Range(0, 1e6)]
"""A learning rate, weight, duration or other quantity; 0 is off."""

Positive = Annotated[float, Range(0, 1e6, "none")]
"""A quantity that cannot be 0, as a temperature."""

InitStd = Annotated[float, Range(0, 10, "none")]
"""Standard deviation of initial values."""

Count = Annotated[int, Range(1, 1_000_000)]
"""How many of something there are, at least one: a batch, neighbours."""

Natural = Annotated[int, Range(0, 1_000_000)]
"""How many of something; 0 stands for the default, for all of them or for none."""

Epochs = Annotated[int, Range(1, 100_000)]
"""Passes over the training images."""

Images = Annotated[int, Range(0, 100_000_000)]
"""Images of a data set; 0 stands for all of them."""

Layers = Annotated[int, Range(1, 256)]
"""Blocks of a network, or heads of a block."""

SomeLayers = Annotated[int, Range(0, 256)]
"""Some of a network's blocks or heads; 0 stands for all of them."""

Width = Annotated[int, Range(1, 65_536)]
"""Channels, or pixels along a side."""

Seed = Annotated[int, Range(0, 2**31 - 1)]
"""A seed."""

Processes = Annotated[int, Range(0, 4096)]
"""Threads, cores, processes or devices; 0 stands for the default."""

Name = Annotated[str, Text(r"[\w@+.][\w@+./-]{0,119}", "a name of letters, digits and @+.-_/")]
"""A name that appears in run ids and folder names."""

Tag = Annotated[str, Text(r"[\w:.+-]{0,120}", "a word of letters, digits and :.+-_")]
"""A word that may be empty."""

Line = Annotated[str, Text(rf".{{0,{LONGEST_TEXT}}}", "one line of text")]
"""Any line of text: a path, a scheduler's option."""


class Ruled:
    """Base of the frozen dataclasses of settings; ``section`` is what messages call them."""

    section: ClassVar[str] = "setting"

    def __init_subclass__(cls, section: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.section = section or cls.section

    def __post_init__(self) -> None:
        """Holds every field to the rule beside it.

        Raises:
            UsageError: naming the setting and its rule.
        """
        kind: Any = type(self)
        for name, check in checks(kind):
            found = check(getattr(self, name))
            if found:
                raise UsageError(f"{self.section}.{name}={shown(getattr(self, name))} {found}.")


Check = Callable[[Any], str]
"""From a value to what it must do instead, or ''."""


@cache
def hints(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields, their rules included."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {f.name: found[f.name] for f in dataclasses.fields(cls)}


@cache
def checks(cls: type) -> tuple[tuple[str, Check], ...]:
    """The check of each field that has something to check."""
    made = ((name, make_check(hint)) for name, hint in hints(cls).items())
    return tuple((name, check) for name, check in made if check is not None)


@cache
def make_check(hint: Any) -> Check | None:
    """The check of one type: its rules, those of its items, and that numbers are finite."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, rules = make_check(inner[0]), inner[1:]
        return lambda value: (base(value) if base else "") or _first(rules, value)
    if origin is tuple:
        return _items_check(inner)
    if origin in (typing.Union, types.UnionType) and inner[-1] is type(None):
        some = make_check(inner[0])
        return some and (lambda value: "" if value is None else some(value))
    return {float: _number, int: _number, str: _text}.get(hint)


def _items_check(inner: tuple[Any, ...]) -> Check:
    repeated = len(inner) == 2 and inner[1] is Ellipsis
    each = [make_check(i) for i in inner[: 1 if repeated else None]]

    def check(values: Any) -> str:
        ruled = zip(each * len(values) if repeated else each, values, strict=True)
        return next((c for one, value in ruled if one and (c := one(value))), "")

    return check


def _first(rules: tuple[Rule, ...], value: Any) -> str:
    return next((c for rule in rules if (c := rule.complaint(value))), "")


def _number(value: Any) -> str:
    try:
        return "" if math.isfinite(value) else "must be finite"
    except (TypeError, OverflowError):
        return "must be a number"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return "must be text"
    if CONTROL.search(value):
        return "must hold no control characters"
    return "" if len(value) <= LONGEST_TEXT else f"must hold at most {LONGEST_TEXT} characters"


def unruled(cls: type) -> Iterator[str]:
    """Names of fields whose type leaves values open and that have no rule beside them."""
    for name, hint in hints(cls).items():
        if not _ruled(hint):
            yield f"{cls.__name__}.{name}"


def _ruled(hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return True if inner[0] in (int, float, str) else _ruled(inner[0])
    if origin is tuple:
        return all(_ruled(i) for i in inner if i is not Ellipsis)
    if origin in (typing.Union, types.UnionType):
        return all(_ruled(i) for i in inner if i is not type(None))
    return (
        origin is Literal
        or hint is bool
        or hint is Any
        or (isinstance(hint, type) and issubclass(hint, Ruled))
    )
