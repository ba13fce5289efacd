"""Weights that were not trained here: reading released checkpoint files, safely, and by content.

Nothing but tensors and plain values is ever unpickled.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api import Method
from bench.errors import StoreError, UsageError
from bench.train import checkpoint
from bench.work import soundness

ENTRIES = ("model", "module", "state_dict")
"""Where released files keep their weights; a file may also hold them at its top."""


def read_weights(path: Path, entries: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file or of a PyTorch checkpoint, all finite.

    ``entries`` are where the network that is meant lies, if the method says so.

    Raises:
        UsageError: if it cannot be read without running code from it, holds no weights under
            one of ``entries`` or at its top, or several networks of which none was meant.
    """
    soundness.check_file(path)
    values = _safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    if not entries:
        soundness.check_entries(path, values)
    asked = entries or ENTRIES
    inner = next((values[e] for e in asked if isinstance(values.get(e), Mapping)), values)
    weights = {n: v for n, v in inner.items() if isinstance(v, Tensor)}
    if not weights:
        held = ", ".join(sorted(map(str, values))) or "nothing"
        raise UsageError(f"'{path}' holds no tensors, under none of {', '.join(asked)}: {held}.")
    soundness.check_finite(path, weights)
    return weights


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(checkpoint.load_weights(path))
    except StoreError as error:
        raise UsageError(
            f"'{path}' is damaged: its header or its checksum does not match. {soundness.AGAIN}"
        ) from error


class _Settings:
    """Stands for the settings that SimMIM's files carry, a dictionary of the library yacs."""

    def __new__(cls) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """An ordinary dictionary: the only kind that torch fills without trust."""
        return OrderedDict()


def _harmless() -> list[Any]:
    """What released files hold beside tensors: settings, and rates that are numpy numbers."""
    numbers = [np.dtype, *(type(np.dtype(t)) for t in ("f2", "f4", "f8", "i4", "i8"))]
    scalar = np.float64(0).__reduce__()[0]
    older = (scalar, "numpy.core.multiarray.scalar")
    return [argparse.Namespace, (_Settings, "yacs.config.CfgNode"), scalar, older, *numbers]


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_harmless()):
            values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, EOFError) or "EOF" in str(error) or soundness.ends_early(path):
            raise UsageError(soundness.cut(path)) from error
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition(". ")[0]
        raise UsageError(
            f"cannot read '{path}': {reason or type(error).__name__}. Only tensors and plain "
            "values are loaded; save its weights alone, as safetensors, where you trust the file."
        ) from error
    if not isinstance(values, Mapping):
        raise UsageError(f"'{path}' holds a {type(values).__name__}, not weights by their names.")
    return values


def fingerprint(path: Path) -> str:
    """``sha256:`` and 16 hexadecimal digits of the file's content.

    Raises:
        UsageError: if there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint '{path}' does not exist.")
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def encoder_weights(method: Method, path: Path) -> dict[str, Tensor]:
    """The encoder in a file, for this method: our own files, or an official release.

    Raises:
        UsageError: if it does not fit, naming what is missing and left over.
    """
    weights = read_weights(path, entries_of(method, path))
    ours = method.encoder().state_dict()
    names = set(ours)
    for found in (weights, {soundness.bare(n): v for n, v in weights.items()}):
        if set(found) == names and len(found) == len(weights):
            soundness.check_sizes(found, ours)
            return found
    prefix = _prefix(method)
    inside = {n.removeprefix(prefix): v for n, v in method_weights(method, weights).items()}
    return {n: inside[n] for n in ours}


def encoder_inside(method: Method, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder among a whole method's own weights; none if they are not all there."""
    prefix, names = _prefix(method), list(method.encoder().state_dict())
    found = {n: weights[prefix + n] for n in names if prefix + n in weights}
    return found if len(found) == len(names) else {}


def entries_of(method: Any, path: Path) -> tuple[str, ...]:
    """Where the file keeps the network that is evaluated, if the method says so; else ().

    Raises:
        UsageError: if by its name the file holds another network.
    """
    asked = getattr(method, "official_entries", None)
    found: tuple[str, ...] = asked(path.name) if asked else ()
    return found


def method_weights(method: Method, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the method's names, whole or of its encoder: ours as they are, or a release's.

    Raises:
        UsageError: if they do not fit, or the method knows no releases.
    """
    module: Any = method
    ours = module.state_dict()
    for found in (weights, {soundness.bare(n): v for n, v in weights.items()}):
        if set(found) == set(ours) and len(found) == len(weights):
            soundness.check_sizes(found, ours)
            return dict(found)
    if not hasattr(module, "import_official"):
        raise UsageError(
            f"the weights are not those of this {type(module).__name__}, which has no "
            "'import_official' for released checkpoints."
        )
    network = soundness.unwrapped(weights)
    soundness.check_sizes(network, ours)
    imported: dict[str, Tensor] = module.import_official(network)
    return imported


def _prefix(method: Method) -> str:
    """What comes before the encoder's names in the method's own state."""
    encoder = method.encoder()
    return next(f"{n}." for n, m in _modules(method) if m is encoder)


def _modules(method: Any) -> Iterator[tuple[str, Any]]:
    yield from method.named_modules()
