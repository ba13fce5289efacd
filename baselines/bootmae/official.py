"""Released checkpoints of BootMAE (LightDXY/BootMAE).

Their names: the encoder's as in MAE but for ``attn.q_bias`` and ``attn.v_bias``; of the pixel
decoder ``down``, ``mask_token``, ``de_pos_embed``, ``decode_blocks``, ``decode_norm``,
``lm_head.proj``; of the feature decoder ``down_1``, ``mask_token_1``, ``decode_blocks_1``,
``decode_norm_1``, ``lm_head_1``. A file holds the student as ``model``, the teacher under the same
names as ``model_ema``.
"""

from __future__ import annotations

from torch import Tensor

from baselines.official import State, checked

PARTS = {
    "down.": "pixel_decoder.embed.",
    "mask_token": "pixel_decoder.mask_token",
    "de_pos_embed": "pixel_positions",
    "decode_blocks.": "pixel_decoder.blocks.",
    "decode_norm.": "pixel_decoder.norm.",
    "lm_head.proj.": "pixel_head.",
    "down_1.": "feature_decoder.embed.",
    "mask_token_1": "feature_decoder.mask_token",
    "decode_blocks_1.": "feature_decoder.blocks.",
    "decode_norm_1.": "feature_decoder.norm.",
    "lm_head_1.": "feature_head.",
}
"""How official names outside of the encoder begin, or are, and ours."""


def from_bootmae(official: State, ours: State) -> dict[str, Tensor]:
    """One network of a release, encoder alone or with its decoders; it becomes teacher as well.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    renamed = {_renamed(name): value for name, value in official.items()}
    network = checked(renamed, {n: v for n, v in ours.items() if not n.startswith("teacher.")})
    teacher = {n: n.replace("teacher.", "vit.", 1) for n in ours if n.startswith("teacher.")}
    return network | {n: network[source].clone() for n, source in teacher.items()}


def _renamed(name: str) -> str:
    for begin, part in PARTS.items():
        if name == begin or (begin.endswith(".") and name.startswith(begin)):
            return part + name.removeprefix(begin)
    return f"vit.{name}"
