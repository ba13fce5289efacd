"""Checkpoints of the original ConMIM (TencentARC/ConMIM).

Their names: the encoder's as in BEiT with one shared bias table, ``mask_token``, and of the
projector ``projectors.N``. A file holds one network as ``model``: ``checkpoint_copy-*.pth`` the
teacher, ``checkpoint-*.pth`` the student, under the same names.
"""

from __future__ import annotations

from torch import Tensor

from baselines.official import State, checked, without_index
from bench.errors import UsageError

UNUSED = ("lm_head.",)
"""What the original makes and never uses: a head without gradient (modeling_pretrain.py)."""

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
"""Statistics that the original keeps and never reads: its batch norms stay in training mode."""


def check_network(file: str, network: str) -> None:
    """Refuses a file that by its name does not hold ``network``, ``student`` or ``teacher``.

    Raises:
        UsageError: naming the other file and the other setting.
    """
    held = {"checkpoint_copy-": "teacher", "checkpoint-": "student"}
    found = next((held[begin] for begin in held if file.startswith(begin)), network)
    if found != network:
        raise UsageError(
            f"'{file}' is the name of ConMIM's {found}, and conmim.evaluate is {network}: its "
            "authors fine-tune the teacher, checkpoint_copy-*.pth. Give the other file, or set "
            f"conmim.evaluate={found}."
        )


def from_conmim(official: State, ours: State) -> dict[str, Tensor]:
    """One network of an original, encoder alone or with projector; it becomes student and teacher.

    Raises:
        UsageError: naming what is missing, left over or of another shape.
    """
    flat = {n.removeprefix("student."): v for n, v in ours.items() if not n.startswith("teacher.")}
    kept = {n: v for n, v in official.items() if not n.startswith(UNUSED)}
    kept = {n: v for n, v in kept.items() if not n.endswith(RUNNING)}
    network = checked({_renamed(n): v for n, v in without_index(kept, flat).items()}, flat)
    towers = {n: v for n, v in network.items() if n != "mask_token"}
    both = {f"student.{n}": v for n, v in towers.items()}
    both |= {f"teacher.{n}": v.clone() for n, v in towers.items()}
    return both | {n: v for n, v in network.items() if n == "mask_token"}


def _renamed(name: str) -> str:
    if name == "mask_token":
        return name
    if name.startswith("projectors."):
        return name.replace("projectors.", "projector.", 1)
    return f"vit.{name}"
