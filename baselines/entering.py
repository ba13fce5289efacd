"""Mask tokens as they enter a model: one shared vector, or what a plug-in puts in their place.

B images, N patches, M the most hidden patches of an image, D width.
"""

from __future__ import annotations

from torch import Tensor

from baselines.places import take
from bench.api import MaskEmbedding, TokenHook
from bench.errors import RunError


def entering(
    hook: TokenHook | None, tokens: Tensor, mask_token: Tensor, hidden: Tensor, stream: str = ""
) -> Tensor:
    """What stands at the hidden patches of ``hidden`` [B, N].

    The mask token [1, 1, D] itself, or the hook's replacements spread over all places, [B, N, D],
    where those at visible places mean nothing.
    """
    seen = MaskEmbedding(tokens, mask_token, hidden, stream)
    instead = None if hook is None else hook.embedding(seen)
    if instead is None:
        return mask_token
    order = hidden.cumsum(1)
    wanted = (len(hidden), int(order[:, -1].max()), mask_token.shape[2])
    if instead.shape != wanted:
        raise RunError(
            f"a plug-in replaced mask tokens by values of shape {tuple(instead.shape)}; this pass "
            f"needs {wanted}: images, the most hidden patches of an image, width."
        )
    return take(instead, (order - 1).clamp(min=0))
