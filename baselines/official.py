"""Released checkpoints: from the original repositories' parameter names to ours.

Each function takes an official state dict and the state of our method, and returns weights under
our names. Every name must find its place: nothing may be left over, and either all of the method
or exactly its encoder must be there. Names of the originals:

- MAE (facebookresearch/mae): ``cls_token``, ``pos_embed``, ``patch_embed``, ``blocks``, ``norm``;
  with a decoder also ``mask_token``, ``decoder_*``.
- SimMIM (microsoft/SimMIM): ``encoder.*`` with ``encoder.mask_token``; ``decoder.0``.
- data2vec (facebookresearch/data2vec_vision): as BEiT, with ``mask_token`` and ``lm_head``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bench.errors import UsageError

State = Mapping[str, Tensor]

INDEX = "relative_position_index"
"""Buffers that released SimMIM and data2vec checkpoints carry and that ours recompute."""


def from_mae(official: State, ours: State) -> dict[str, Tensor]:
    """MAE, encoder alone (``mae_pretrain_vit_*``) or with its decoder (``*_full``, ``visualize``).

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    outside = ("mask_token", "decoder_")
    renamed = {n if n.startswith(outside) else f"vit.{n}": v for n, v in official.items()}
    return _checked(renamed, ours)


def from_simmim(official: State, ours: State) -> dict[str, Tensor]:
    """SimMIM with a ViT encoder and its shared bias table, with or without the decoder.

    An encoder alone may come without mask token.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    renamed = {}
    for name, value in _without_index(official, ours).items():
        inner = name.removeprefix("encoder.")
        renamed[inner if inner.startswith(("mask_token", "decoder.0.")) else f"vit.{inner}"] = value
    return _checked(renamed, ours)


def from_data2vec(official: State, ours: State) -> dict[str, Tensor]:
    """data2vec's student. The teacher starts as its copy, as with the original's ``--seed_model``.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    outside = ("mask_token", "lm_head.")
    known = _without_index(official, ours)
    renamed = {n if n.startswith(outside) else f"vit.{n}": v for n, v in known.items()}
    student = _checked(renamed, {n: v for n, v in ours.items() if not n.startswith("teacher.")})
    if "lm_head.weight" not in student:
        return student
    teacher = [n for n in ours if n.startswith("teacher.")]
    return student | {n: student[n.replace("teacher.", "vit.", 1)].clone() for n in teacher}


def _without_index(official: State, ours: State) -> dict[str, Tensor]:
    """The state without index buffers, which must address the tables as ours do."""
    kept = {n: v for n, v in official.items() if not n.endswith(INDEX)}
    tokens = [v.shape[0] for n, v in official.items() if n.endswith(INDEX)]
    tables = [v.shape[0] for n, v in ours.items() if n.endswith("vit.rel_pos_bias." + TABLE)]
    for count in tokens if tables else ():
        grid = round((count - 1) ** 0.5)
        if (2 * grid - 1) ** 2 + 3 != tables[0]:
            raise UsageError(f"the checkpoint's grid is {grid} x {grid}, the model's is not.")
    return kept


TABLE = "relative_position_bias_table"


def _checked(found: dict[str, Tensor], ours: State) -> dict[str, Tensor]:
    """``found``, if it fits the whole method or exactly its encoder."""
    encoder = {n for n in ours if n.startswith("vit.")}
    beyond = (set(found) & set(ours)) - encoder - {"mask_token"}
    wanted = set(ours) if beyond else encoder
    missing, extra = sorted(wanted - set(found)), sorted(set(found) - set(ours))
    shapes = [
        f"{n} {list(v.shape)} instead of {list(ours[n].shape)}"
        for n, v in found.items()
        if n in ours and v.shape != ours[n].shape
    ]
    if missing or extra or shapes:
        raise UsageError(
            "the checkpoint does not fit this model: "
            f"missing {_few(missing)}; left over {_few(extra)}; of another shape {_few(shapes)}. "
            "Choose the preset of its size, and the method that trained it."
        )
    return {n: v.to(ours[n].dtype) for n, v in found.items()}


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "nothing"
