"""Released checkpoints of SimMIM (microsoft/SimMIM).

Their names: ``encoder.*`` with ``encoder.mask_token``; ``decoder.0``.
"""

from __future__ import annotations

from torch import Tensor

from baselines.official import State, checked, without_index


def from_simmim(official: State, ours: State) -> dict[str, Tensor]:
    """SimMIM with a ViT encoder and its shared bias table, with or without the decoder.

    An encoder alone may come without mask token.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    renamed = {}
    for name, value in without_index(official, ours).items():
        inner = name.removeprefix("encoder.")
        renamed[inner if inner.startswith(("mask_token", "decoder.0.")) else f"vit.{inner}"] = value
    return checked(renamed, ours)
