"""Released checkpoints of CrossMAE (TonyLianLong/CrossMAE).

Their names: MAE's without ``norm`` and ``decoder_embed``; with a decoder also ``wfm.linear``, the
weights by which its blocks mix the encoder's outputs, and ``dec_norms``, the norms of the mixtures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.official import State, checked

MIX = "wfm.linear.weight"


def from_crossmae(official: State, ours: State) -> dict[str, Tensor]:
    """CrossMAE, encoder alone or with its decoder; the final norm, which it lacks, does nothing.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    outside = ("mask_token", "decoder_", "dec_norms.", "wfm.")
    renamed = {n if n.startswith(outside) else f"vit.{n}": v for n, v in official.items()}
    if MIX in renamed:
        renamed["mix"] = renamed.pop(MIX)
    width = ours["vit.norm.weight"].shape
    return checked(
        {"vit.norm.weight": torch.ones(width), "vit.norm.bias": torch.zeros(width), **renamed}, ours
    )
