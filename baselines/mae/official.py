"""Released checkpoints of MAE (facebookresearch/mae).

Their names: ``cls_token``, ``pos_embed``, ``patch_embed``, ``blocks``, ``norm``; with a
decoder also ``mask_token``, ``decoder_*``.
"""

from __future__ import annotations

from torch import Tensor

from baselines.official import State, checked


def from_mae(official: State, ours: State) -> dict[str, Tensor]:
    """MAE, encoder alone (``mae_pretrain_vit_*``) or with its decoder (``*_full``, ``visualize``).

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    outside = ("mask_token", "decoder_")
    renamed = {n if n.startswith(outside) else f"vit.{n}": v for n, v in official.items()}
    return checked(renamed, ours)
