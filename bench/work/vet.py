"""Whatever can be known before the first run: models on the meta device, masks, data, devices.

A study is vetted when it is planned, by a dry run as by a launch of any kind, before a folder is
written. Nothing is computed: models have shapes and no values.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.api import Batch, ClassifierOptions, MaskEmbedding, TokenLayer
from bench.data import gate, outline
from bench.data.listing import same_images
from bench.data.load import load
from bench.errors import UsageError
from bench.plan.config import Resources, RunConfig
from bench.store.store import Store
from bench.streams import Streams, preserved
from bench.work import released
from bench.work.place import Place

MASKS = 64
"""Images for which masks are drawn."""

TRAINED, KEPT = 16, 4
"""Bytes a parameter takes that is trained by Adam (value, gradient, two moments), or only kept."""

SMALL = 10_000_000
"""Parameters of a model that may be built with values."""

LARGEST = 2.0**43
"""Bytes of weights and their training that no process of any cluster holds."""


def vet(configs: Sequence[RunConfig], resources: Resources, place: Place) -> list[str]:
    """Refuses what could not run; returns what a reader should know of the images.

    Raises:
        UsageError: naming arm and setting.
    """
    if place.here:
        _check_device(resources.device)
    notes: dict[str, None] = {}
    for config in _distinct(configs, lambda c: (c.data, c.tasks, c.model)):
        notes |= dict.fromkeys(check_images(config, resources))
    models = _distinct(configs, lambda c: (c.method, c.hyper, c.plugins, c.model, c.tasks))
    for config in models:
        try:
            check_model(config, resources, place)
        except UsageError as error:
            raise UsageError(f"{config.arm}: {error}") from error
    return list(notes)


def _distinct(configs: Iterable[RunConfig], key: Callable[[RunConfig], Any]) -> Iterable[RunConfig]:
    return {key(config): config for config in configs}.values()


def _check_device(name: str) -> None:
    if not name.startswith("cuda"):
        return
    count, number = torch.cuda.device_count(), int(name.partition(":")[2] or 0)
    if number >= count:
        raise UsageError(
            f"--device {name}: torch sees {count} GPU(s) here. Use --device cpu, or see 'doctor'."
        )


# --- images ---------------------------------------------------------------------------------------


def check_images(config: RunConfig, resources: Resources) -> list[str]:
    """Runs the gate on a study's images; on built-in ones by what is known of their labels.

    Raises:
        DataError: if they do not pass.
    """
    labels = outline.train_labels(config.data)
    if labels is not None and not resources.data_root:
        gate.check_budget(labels, config)
        return []
    images = load(config, resources.data_root, resources.strict_images)
    gate.check_budget(images.train.labels, config)
    return images.notes()


def check_same_images(
    config: RunConfig, resources: Resources, store: Store, ids: Iterable[str]
) -> None:
    """Refuses to mix runs on another copy of a data set of the same name into a study.

    Raises:
        UsageError: if runs in the folder saw other images than ``--data`` holds.
    """
    stored = {store.run(i).images() for i in ids} - {""}
    if not resources.data_root or not stored:
        return
    here = load(config, resources.data_root).fingerprint()
    if not all(same_images(one, here) for one in stored):
        raise UsageError(
            f"runs in '{store.root}' were computed on other images than '{resources.data_root}' "
            f"holds (fingerprints {', '.join(sorted(stored))} and {here}). Choose another --out."
        )


# --- models ---------------------------------------------------------------------------------------


def check_model(config: RunConfig, resources: Resources, place: Place) -> None:
    """Builds method, plug-ins and classifier on the meta device, and draws masks.

    Raises:
        UsageError: if a part cannot be built, or the sizes make no sense.
    """
    bare = _built(lambda: registry.METHODS.load(config.method)(config.model, config.hyper))
    method = bare
    for name, settings in config.plugins:
        method = _built(partial(registry.PLUGINS.load(name), method, settings))
        if hasattr(settings, "check_layers"):
            settings.check_layers(_token_layers(bare, config), config.model.heads)
    for _, recipe in config.tasks:
        if hasattr(recipe, "drop_path"):
            options = ClassifierOptions(classes=2, drop_path=recipe.drop_path, pool=recipe.pool)
            _built(partial(_start_classifier, method, options))
    _check_memory(method, resources, place)
    if resources.init_path:
        released.encoder_weights(method, Path(resources.init_path))
    else:
        check_masks(method, config)


def _start_classifier(method: Any, options: ClassifierOptions) -> None:
    method.classifier(options).load_encoder(method.encoder().state_dict())


def _built(make: Callable[[], Any]) -> Any:
    """What ``make`` builds, with shapes and no values."""
    try:
        with torch.device("meta"):
            return make()
    except UsageError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
        raise UsageError(f"the model cannot be built from these settings: {error}") from error


class _Counter:
    """A hook that counts the layers which carry mask tokens."""

    def __init__(self) -> None:
        self.layers = 0

    def embedding(self, embedding: MaskEmbedding) -> None:
        """Nothing."""

    def plan(self, layers: int, hidden: Tensor, stream: str = "") -> None:
        """Notes the layers of the longest stream."""
        self.layers = max(self.layers, layers)

    def attention(self, layer: TokenLayer) -> None:
        """Nothing."""


def _token_layers(bare: Any, config: RunConfig) -> int:
    """Layers that carry mask tokens, as a pass tells; else the encoder's.

    A small model passes with values: on the meta device, torch would import its compiler.
    """
    counter, shape = _Counter(), config.model
    large = sum(p.numel() for p in bare.parameters()) > SMALL
    device = "meta" if large else "cpu"
    images = torch.zeros(2, shape.channels, shape.image_size, shape.image_size, device=device)
    hidden = bare.draw_hidden(Streams(0, 0).samples("mask", 0, torch.arange(2))).to(device)
    with preserved(), contextlib.suppress(RuntimeError, NotImplementedError):
        # not all of a pass can be told without values
        method = bare if large else registry.METHODS.load(config.method)(shape, config.hyper)
        method(Batch(images, hidden, view=images), counter)
    return counter.layers or shape.depth


def check_masks(method: Any, config: RunConfig) -> None:
    """Draws masks for some images.

    Raises:
        UsageError: if one hides nothing or everything, or does not fit the patches.
    """
    stream = Streams(config.suite_seed, config.seed).samples("mask", 0, torch.arange(MASKS))
    hidden = method.draw_hidden(stream)
    patches = config.model.patches
    if tuple(hidden.shape) != (MASKS, patches):
        raise UsageError(
            f"masks cover {hidden.shape[-1]} of {patches} patches: the size of its masked squares "
            "must divide the image."
        )
    counts = hidden.sum(1)
    for count, what in ((0, "no"), (patches, "every")):
        if int((counts == count).sum()):
            raise UsageError(
                f"its settings hide {what} patch of an image ({patches} patches): choose another "
                "mask ratio or block size."
            )


def _check_memory(method: Any, resources: Resources, place: Place) -> None:
    parameters = list(method.parameters())
    wanted = sum(p.numel() * (TRAINED if p.requires_grad else KEPT) for p in parameters)
    there = _memory(resources.device) if place.here else place.memory_gb * 1e9 or LARGEST
    if wanted > there:
        raise UsageError(
            f"weights, gradients and Adam's moments alone take {wanted / 2**30:.3g} GiB, of "
            f"{there / 2**30:.3g} GiB there are. Choose a smaller model."
        )


def _memory(device: str) -> int:
    """Bytes of the device's memory."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
