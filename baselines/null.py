"""An arm that is its baseline but for chance: the noise floor of a comparison. Imports no torch.

``mae+null`` differs from ``mae`` in nothing but the first values of its mask tokens, which come
from the same distribution by another stream. Whatever the two arms differ by is what any two
equal arms of a matched comparison differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.api import GeneratorFor, Method
from bench.api.rules import Natural, Ruled
from bench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class NullConfig(Ruled, section="null"):
    """Which draw of the mask tokens' first values is taken; 0 is the baseline's own."""

    draw: Natural = 1


def with_null(method: Method, config: NullConfig) -> Method:
    """``method`` itself, its mask tokens first drawn from the streams ``null.<draw>.<name>``.

    Raises:
        UsageError: if the method has no mask tokens.
    """
    if not method.mask_tokens():
        raise UsageError(f"{type(method).__name__} has no mask tokens, so null cannot wrap it.")
    if config.draw:
        tokens = {_own_name(name) for name in method.mask_tokens()}
        changed: Any = method
        changed.reset_parameters = partial(_reset, method.reset_parameters, tokens, config.draw)
    return method


def _own_name(name: str) -> str:
    """A parameter's name without those of the modules around it."""
    return name.rpartition(".")[2]


def _reset(
    reset: Callable[[GeneratorFor], None],
    tokens: Set[str],
    draw: int,
    generator_for: GeneratorFor,
) -> None:
    """The method's own rule, given another generator where a mask token is drawn."""

    def generator(name: str) -> Any:
        return generator_for(f"null.{draw}.{name}" if _own_name(name) in tokens else name)

    reset(generator)
