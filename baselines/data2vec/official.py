"""Released checkpoints of data2vec (facebookresearch/data2vec_vision).

Their names: as BEiT, with ``mask_token`` and ``lm_head``.
"""

from __future__ import annotations

from torch import Tensor

from baselines.official import State, checked, without_index


def from_data2vec(official: State, ours: State) -> dict[str, Tensor]:
    """data2vec's student. The teacher starts as its copy, as with the original's ``--seed_model``.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    outside = ("mask_token", "lm_head.")
    known = without_index(official, ours)
    renamed = {n if n.startswith(outside) else f"vit.{n}": v for n, v in known.items()}
    student = checked(renamed, {n: v for n, v in ours.items() if not n.startswith("teacher.")})
    if "lm_head.weight" not in student:
        return student
    teacher = [n for n in ours if n.startswith("teacher.")]
    return student | {n: student[n.replace("teacher.", "vit.", 1)].clone() for n in teacher}
