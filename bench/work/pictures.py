"""Looking into a run or checkpoint: reconstruction pictures, and its layers measured.

B images, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench import registry
from bench.api import Batch
from bench.data import load
from bench.data.batch import FeedConfig
from bench.data.feed import evaluation_batches
from bench.data.views import view_for
from bench.errors import UsageError
from bench.plan.config import RunConfig
from bench.plan.sections import AugmentConfig, DataConfig
from bench.streams import Streams
from bench.train import checkpoint
from bench.train.method import build_method
from bench.train.method import measure_layers as layers_of
from bench.work.released import entries_of, method_weights, read_weights

GREY = 0.5
"""What stands for a hidden patch, in [0, 1]."""


@dataclass(frozen=True)
class Pictures:
    """Images in [0, 1], each [B, C, S, S]."""

    original: Tensor
    masked: Tensor
    reconstruction: Tensor


def run_weights(folder: Path) -> dict[str, Tensor]:
    """The whole method's weights of a run: of its end, or its newest state while it computes.

    Raises:
        UsageError: if the run has left neither yet.
    """
    final = folder / "method.safetensors"
    if final.exists():
        return read_weights(final)
    state = checkpoint.load_state(folder / "checkpoints" / "pretrain")
    if state is None:
        raise UsageError(f"run '{folder.name}' has no weights yet.")
    weights: dict[str, Tensor] = state["module"]
    return weights


def file_weights(config: RunConfig, path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint file, of the network that the configuration's method evaluates.

    Raises:
        UsageError: if it is no sound checkpoint.
    """
    with torch.device("meta"):
        method = registry.METHODS.load(config.method)(config.model, config.hyper)
    return read_weights(path, entries_of(method, path))


def reconstruct(
    config: RunConfig, weights: dict[str, Tensor], root: str, count: int
) -> tuple[Pictures, list[int]]:
    """Pictures of the first ``count`` test images, and those images' classes.

    The forward pass is the arm's own, plug-ins included; masks come from the run's seed.

    Raises:
        UsageError: if the method predicts no pixels, or the weights are not all there.
    """
    plain: Any = registry.METHODS.load(config.method)(config.model, config.hyper)
    if not hasattr(plain, "reconstruct"):
        raise UsageError(f"'{config.method}' predicts features, not pixels: nothing to draw.")
    method = _loaded(config, weights)
    images, labels = _test_images(config, root, count)
    streams = Streams(config.suite_seed, config.seed)
    hidden = plain.draw_hidden(streams.samples("show", 0, torch.arange(len(images))))
    batch = Batch(images, hidden)
    with torch.no_grad():
        prediction = method(batch).prediction
    pixels = plain.reconstruct(batch, prediction)
    original = _visible(images, config.data)
    patch = config.model.patch_size
    cells = hidden.view(-1, 1, config.model.grid, config.model.grid).float()
    cells = cells.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    masked = original * (1 - cells) + GREY * cells
    return Pictures(original, masked, _visible(pixels, config.data)), labels


def _loaded(config: RunConfig, weights: dict[str, Tensor]) -> Any:
    """The arm with these weights, in evaluation mode."""
    method: Any = build_method(config)
    missing = method.load_state_dict(method_weights(method, weights), strict=False).missing_keys
    if missing:
        raise UsageError(f"the checkpoint holds an encoder alone; {missing[0]} is needed as well.")
    return method.eval()


@torch.no_grad()
def measure_layers(
    config: RunConfig, weights: dict[str, Tensor], root: str, count: int
) -> dict[str, Any]:
    """Heterogeneity, attention mass and mask-token distance of a checkpoint.

    Measured on the first ``count`` test images, masked from the configuration's seed.

    Raises:
        UsageError: if the weights are not all there.
    """
    method = _loaded(config, weights)
    images, _ = _test_images(config, root, count)
    streams = Streams(config.suite_seed, config.seed)
    hidden = method.draw_hidden(streams.samples("show", 0, torch.arange(len(images))))
    views = streams.samples("show view", 0, torch.arange(len(images)))
    return layers_of(method, Batch(images, hidden, view=view_for(config, images, views)))


def _test_images(config: RunConfig, root: str, count: int) -> tuple[Tensor, list[int]]:
    split = load.load(config, root).test
    feed = FeedConfig(
        data=config.data,
        augment=AugmentConfig(),
        image_size=config.model.image_size,
        batch_size=count,
        drop_last=False,
        streams=Streams(config.suite_seed, config.seed),
        purpose="show",
        device=torch.device("cpu"),
    )
    chosen = torch.linspace(0, len(split) - 1, min(count, len(split))).long()
    images, labels = next(evaluation_batches(split, chosen, feed))
    return images, labels.tolist()


def _visible(images: Tensor, config: DataConfig) -> Tensor:
    """Normalised images back in [0, 1]."""
    mean = torch.tensor(config.mean)[:, None, None]
    std = torch.tensor(config.std)[:, None, None]
    return (images.float() * std + mean).clamp(0, 1)


def draw(shown: Mapping[str, Pictures], path: Path) -> None:
    """Writes a row an image, as PNG: original, masked, then each arm's reconstruction."""
    first = next(iter(shown.values()))
    columns = {"original": first.original, "masked": first.masked}
    columns |= {title: pictures.reconstruction for title, pictures in shown.items()}
    rows = len(first.original)
    figure = Figure(figsize=(1.8 * len(columns), 1.8 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for row in range(rows):
        for axis, (title, images) in zip(axes[row], columns.items(), strict=True):
            image = images[row].permute(1, 2, 0).numpy()
            grey = image.shape[2] == 1
            axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
