"""Released checkpoints: what the methods' translations of names share.

A method's translation (its ``official.py``) takes an official state dict and the state of our
method, and returns weights under our names. Every name must find its place: nothing may be left
over, and either all of the method or exactly its encoder must be there.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bench.errors import UsageError

State = Mapping[str, Tensor]

INDEX = "relative_position_index"
"""Buffers that released SimMIM and data2vec checkpoints carry and that ours recompute."""


def without_index(official: State, ours: State) -> dict[str, Tensor]:
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


def checked(found: dict[str, Tensor], ours: State) -> dict[str, Tensor]:
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
