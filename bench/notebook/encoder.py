"""A run's encoder outside of this package: as a model of timm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from bench.errors import UsageError
from bench.plan import resolve
from bench.plan.config import RunConfig
from bench.store.folder import RunFolder
from bench.store.store import Store
from bench.work.result import encoder_of

POOLS = {"mean": "avg", "cls": "token"}
"""Pooling by our names, and by timm's."""

SHARED, EACH = "rel_pos_bias.relative_position_bias_table", "attn.relative_position_bias_table"


def encoder(
    run: str | Path, out: str | Path = "results", pool: Literal["mean", "cls"] = "mean"
) -> nn.Module:
    """The encoder that a run pre-trained, as a timm model in evaluation mode.

    Its ``forward`` gives the features [B, D] that evaluations see, ``forward_features`` the
    normalised tokens [B, 1 + N, D].

    Args:
        run: a run's folder, or the id (or its beginning) of a pre-training or of a cell in ``out``.
        out: the results folder.
        pool: ``mean`` over the patches, or the class token.

    Raises:
        UsageError: if there is no such run, or timm has no model of its kind.
        StorageError: if its weights are lost or damaged.
    """
    folder = _folder(run, out)
    kept = folder.config()
    if kept is None:
        raise UsageError(f"'{folder.path}' has no config.json: it was never started.")
    config = resolve.run_from_plain(kept["config"])
    return timm_model(config, encoder_of(folder, config), pool)


def _folder(run: str | Path, out: str | Path) -> RunFolder:
    """The pre-training that is meant."""
    path = Path(os.path.expanduser(run))
    if path.is_dir() and (path / "config.json").is_file():
        path = path.absolute()
        return Store(path.parents[1]).pretraining(path.name)
    return Store(Path(os.path.expanduser(out))).pretraining(os.fspath(run))


def timm_model(config: RunConfig, weights: dict[str, Tensor], pool: str) -> nn.Module:
    """Timm's ``VisionTransformer`` or ``Beit``, by the names of the weights.

    Raises:
        UsageError: if the weights fit neither.
    """
    from timm.models.beit import Beit
    from timm.models.vision_transformer import VisionTransformer

    if pool not in POOLS:
        raise UsageError(f"unknown pooling '{pool}'. Known: {', '.join(POOLS)}.")
    split = "blocks.0.attn.q_bias" in weights
    model: Any = Beit if split else VisionTransformer
    made = model(**_options(config), **(_beit(weights) if split else {}))
    try:
        made.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(
            f"timm has no model for the encoder of '{config.method}': {error}"
        ) from error
    made.global_pool = POOLS[pool]  # made with "token", so that the norm comes before pooling
    return made.eval()


def _options(config: RunConfig) -> dict[str, Any]:
    shape = config.model
    return {
        "img_size": shape.image_size,
        "patch_size": shape.patch_size,
        "in_chans": shape.channels,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_ratio,
        "num_classes": 0,
        "global_pool": "token",
    }


def _beit(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Positions and layer scale, as the weights have them."""
    return {
        "use_abs_pos_emb": "pos_embed" in weights,
        "use_rel_pos_bias": any(name.endswith(EACH) for name in weights),
        "use_shared_rel_pos_bias": SHARED in weights,
        "init_values": 0.1 if any(name.endswith("gamma_1") for name in weights) else None,
    }
