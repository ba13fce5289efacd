"""Whether a file that a user gives holds the weights it seems to: each defect in one sentence."""

from __future__ import annotations

import json
import pickletools
import zipfile
from collections.abc import Iterable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import UsageError, shown

LFS = b"version https://git-lfs.github.com/spec/"
"""How the small text begins that Git LFS keeps in place of a file."""

PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
"""How an answer begins that is a web page."""

HEAD = 512
"""Bytes of a file that tell its kind."""

PICKLE, PICKLES = b"\x80", 5
"""How PyTorch's older files begin, and the pickles in one before its tensors' bytes."""

PREFIXES = ("module.", "_orig_mod.", "backbone.")
"""What DistributedDataParallel, torch.compile and larger models put before a network's names."""

PATCHES = "patch_embed.proj.weight"
"""A tensor that each network has once."""

AGAIN = "Fetch or copy it anew."


def check_file(path: Path) -> None:
    """Refuses what is no checkpoint by its first bytes, and one that is cut.

    Raises:
        UsageError: saying what the file is.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint '{path}' does not exist.")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(LFS):
        raise UsageError(
            f"'{path}' is a Git LFS pointer, not the weights it stands for: run 'git lfs pull'."
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        raise UsageError(f"'{path}' is a web page (HTML), not weights: download the file itself.")
    if not head:
        raise UsageError(f"'{path}' is empty. {AGAIN}")
    if path.suffix == ".safetensors":
        _check_length(path)
    elif head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise UsageError(cut(path))


def cut(path: Path) -> str:
    """What is said of a file that ends too early."""
    return f"'{path}' is cut: it ends before its weights do. {AGAIN}"


def ends_early(path: Path) -> bool:
    """Whether a file of PyTorch's older form ends within its pickles, values before tensors."""
    with path.open("rb") as file:
        if file.read(1) != PICKLE:
            return False
        file.seek(0)
        try:
            for _ in range(PICKLES):
                for _ in pickletools.genops(file):
                    pass
        except ValueError:
            return True
    return False


def _check_length(path: Path) -> None:
    """Compares a safetensors file with the size that its header tells."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        begins = file.read(1)
        if size < 10 or (begins == b"{" and start > size):
            raise UsageError(cut(path))
        if begins != b"{":
            raise UsageError(f"'{path}' is no safetensors file. {AGAIN}")
        file.seek(8)
        text = file.read(start - 8)
    if start + _body(text, path) > size:
        raise UsageError(cut(path))


def _body(text: bytes, path: Path) -> int:
    """Bytes of tensors that a safetensors header announces."""
    try:
        header = json.loads(text)
        ends = [v["data_offsets"][1] for n, v in header.items() if n != "__metadata__"]
        return int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UsageError(f"'{path}' is damaged: its header cannot be read. {AGAIN}") from error


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuses weights with NaN or infinity among them.

    Raises:
        UsageError: naming the first tensor and how many there are.
    """
    floating = {n: v for n, v in weights.items() if v.is_floating_point()}
    bad = [n for n, v in floating.items() if not torch.isfinite(v.sum(dtype=torch.float64))]
    if bad:
        raise UsageError(
            f"'{path}' holds NaN or infinity in {len(bad)} of {len(weights)} tensors, first in "
            f"'{shown(bad[0])}': its training diverged, or it is damaged. Give another checkpoint."
        )


def check_entries(path: Path, values: Mapping[str, Any]) -> None:
    """Refuses a file that holds networks of the same names in several entries.

    Raises:
        UsageError: naming the entries.
    """
    held: dict[str, set[str]] = {}
    for entry, inner in values.items():
        if isinstance(inner, Mapping):
            held[str(entry)] = {bare(str(n)) for n, v in inner.items() if isinstance(v, Tensor)}
    twins = [e for e in held if any(held[e] & held[o] for o in held if o != e)]
    if twins:
        raise UsageError(_several(f"'{path}'", twins))


def _several(what: str, networks: Iterable[str]) -> str:
    names = ", ".join(shown(name) for name in networks)
    return (
        f"{what} holds several networks ({names}), as of a student and its teacher: save the one "
        "that is meant alone, as safetensors, and give that file."
    )


def bare(name: str) -> str:
    """A tensor's name without what wrappers put before it, or into it."""
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name.replace("._orig_mod.", ".")


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One network's weights under their bare names.

    Raises:
        UsageError: if they are those of several networks.
    """
    found = {bare(name): value for name, value in weights.items()}
    ends = [n for n in weights if n == PATCHES or n.endswith(f".{PATCHES}")]
    if len(found) < len(weights) or len(ends) > 1:
        begin = [n.removesuffix(PATCHES) or "no prefix" for n in ends]
        raise UsageError(_several("the checkpoint", begin or ["names that differ by prefixes"]))
    return found


def check_sizes(weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuses weights of images or patches of another size, or of other shapes under our names.

    Raises:
        UsageError: saying what the file has and what the model needs.
    """
    (patch, grid), (our_patch, our_grid) = _geometry(weights), _geometry(ours)
    known = patch and grid and our_patch and our_grid
    if known and (patch, grid) != (our_patch, our_grid):
        raise UsageError(
            f"the checkpoint is of {_pictures(patch, grid)}, the model needs one of "
            f"{_pictures(our_patch, our_grid)}: positions are not interpolated. Set "
            f"model.image_size={patch * grid} model.patch_size={patch}, or give another file."
        )
    for name, value in weights.items():
        if name in ours and value.shape != ours[name].shape:
            raise UsageError(
                f"the checkpoint's '{shown(name)}' is {list(value.shape)}, the model needs "
                f"{list(ours[name].shape)}. Choose the preset of its size."
            )


def _pictures(patch: int, grid: int) -> str:
    size = patch * grid
    return f"images of {size} x {size} in patches of {patch} ({grid} x {grid} of them)"


def _geometry(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Pixels of a patch's side and patches of an image's side; 0 for what shapes do not tell."""
    patch = grid = 0
    for name, value in weights.items():
        last = name.rpartition(".")[2]
        if name.endswith(PATCHES) and value.ndim == 4:
            patch = value.shape[-1]
        elif last == "pos_embed" and value.ndim == 3:
            grid = isqrt(value.shape[1])
        elif last == "relative_position_bias_table" and value.ndim == 2:
            grid = (isqrt(value.shape[0]) + 1) // 2
    return patch, grid
