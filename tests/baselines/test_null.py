from __future__ import annotations

from typing import Any

import pytest
import torch

from baselines.null import NullConfig, with_null
from bench import registry
from bench.errors import UsageError
from bench.plan import resolve, typed
from bench.plan.layers import load_preset
from bench.train.method import build_method

BARE = registry.METHODS.names()


def built(arm: str, **layer: Any) -> Any:
    layers = (*load_preset("digits"), layer)
    return build_method(resolve.Resolver(layers).resolve(typed.parse_arm(arm), 2, 0))


def changed(arm: str, base: str, **layer: Any) -> set[str]:
    """Parameters whose first values differ between two arms."""
    ours, theirs = built(arm, **layer).state_dict(), built(base, **layer).state_dict()
    assert list(ours) == list(theirs)
    return {name for name, value in ours.items() if not torch.equal(value, theirs[name])}


@pytest.mark.parametrize("name", BARE)
def test_only_the_mask_tokens_first_values_differ(name: str) -> None:
    assert changed(f"{name}+null", name) == set(built(name).mask_tokens())


@pytest.mark.parametrize("name", BARE)
def test_the_other_draw_is_of_the_same_size(name: str) -> None:
    tokens = [built(arm).mask_tokens() for arm in (name, f"{name}+null")]
    for ours, theirs in zip(tokens[0].values(), tokens[1].values(), strict=True):
        ratio = ours.std() / theirs.std()
        assert 0.6 < ratio < 1.6
        assert abs(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) < 0.5


def test_draw_0_is_the_baselines_own() -> None:
    for name in BARE:
        assert changed(f"{name}+null", name, null={"draw": 0}) == set()


def test_draws_are_independent() -> None:
    first, second = (built("mae+null", null={"draw": k}).mask_token for k in (1, 2))
    assert not torch.equal(first, second)


def test_it_reaches_mask_tokens_that_another_plug_in_draws() -> None:
    tokens = set(built("simmim+mto(init)").mask_tokens())
    assert changed("simmim+mto(init)+null", "simmim+mto(init)") == tokens


def test_a_method_without_mask_tokens_and_a_negative_draw_are_refused() -> None:
    class Bare:
        def mask_tokens(self) -> dict[str, Any]:
            return {}

    with pytest.raises(UsageError, match="Bare has no mask tokens"):
        with_null(Bare(), NullConfig())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"null.draw=-1 must be at least 0"):
        NullConfig(draw=-1)
