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
from safetensors.torch import load_file
from torch import Tensor

from bench.api import Method
from bench.errors import UsageError

ENTRIES = ("model", "module", "state_dict")
"""Where released files keep their weights; a file may also hold them at its top."""


def read_weights(path: Path, entries: tuple[str, ...] = ENTRIES) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file or of a PyTorch checkpoint.

    Raises:
        UsageError: if it cannot be read without running code from it, or holds no weights under
            one of ``entries`` or at its top.
    """
    values = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    inner = next((values[e] for e in entries if isinstance(values.get(e), Mapping)), values)
    weights = {n: v for n, v in inner.items() if isinstance(v, Tensor)}
    if not weights:
        held = ", ".join(sorted(map(str, values))) or "nothing"
        raise UsageError(f"'{path}' holds no tensors, under none of {', '.join(entries)}: {held}.")
    return weights


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
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition(". ")[0]
        raise UsageError(
            f"cannot read '{path}': {reason or type(error).__name__}. Only tensors and plain "
            "values are loaded; save its weights alone, as safetensors, where you trust the file."
        ) from error
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
    weights = read_weights(path, _entries(method, path))
    names = set(method.encoder().state_dict())
    if set(weights) == names:
        return weights
    prefix = _prefix(method)
    inside = {n.removeprefix(prefix): v for n, v in method_weights(method, weights).items()}
    return {n: inside[n] for n in names}


def _entries(method: Any, path: Path) -> tuple[str, ...]:
    """Where the file keeps the network that is evaluated, if the method has two of them."""
    asked = getattr(method, "official_entries", None)
    found: tuple[str, ...] = asked(path.name) if asked else ()
    return found or ENTRIES


def method_weights(method: Method, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the method's names, whole or of its encoder: ours as they are, or a release's.

    Raises:
        UsageError: if they do not fit, or the method knows no releases.
    """
    module: Any = method
    if set(weights) == set(module.state_dict()):
        return dict(weights)
    if not hasattr(module, "import_official"):
        raise UsageError(
            f"the weights are not those of this {type(module).__name__}, which has no "
            "'import_official' for released checkpoints."
        )
    imported: dict[str, Tensor] = module.import_official(weights)
    return imported


def _prefix(method: Method) -> str:
    """What comes before the encoder's names in the method's own state."""
    encoder = method.encoder()
    return next(f"{n}." for n, m in _modules(method) if m is encoder)


def _modules(method: Any) -> Iterator[tuple[str, Any]]:
    yield from method.named_modules()
