"""Whatever can be known before the first run: models on the meta device, masks, data, devices.

A study is vetted when it is planned, by a dry run as by a launch of any kind, before a folder is
written. Nothing is computed: models have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import registry
from bench.api import ClassifierOptions, needs_of
from bench.data import gate, outline
from bench.data.listing import same_images
from bench.data.load import load
from bench.errors import UsageError
from bench.plan.config import Resources, RunConfig
from bench.plan.sections import DataConfig
from bench.store.store import Store
from bench.streams import Streams
from bench.work import memory, released
from bench.work.memory import Stage
from bench.work.place import Place
from bench.work.trial import Trial

MASKS, MASKED_PATCHES = 64, 2**18
"""Images for which masks are drawn: so many, or fewer of more patches in all."""


def vet(configs: Sequence[RunConfig], resources: Resources, place: Place) -> list[str]:
    """Refuses what could not run; returns what a reader should know of the images.

    Raises:
        UsageError: naming arm and setting.
    """
    if place.here:
        check_device(resources.device, place.gpus)
    counts: dict[DataConfig, Counts] = {}
    notes: dict[str, None] = {}
    for config in _distinct(configs, lambda c: (c.data, c.tasks, c.model)):
        counts[config.data], found = check_images(config, resources, place)
        notes |= dict.fromkeys(found)
    for config in configs:
        try:
            check_model(config, resources, place, counts[config.data])
        except UsageError as error:
            raise UsageError(f"{config.arm}: {error}") from error
    return list(notes)


def _distinct(configs: Iterable[RunConfig], key: Callable[[RunConfig], Any]) -> Iterable[RunConfig]:
    return {key(config): config for config in configs}.values()


def check_device(name: str, on_gpus: bool = False) -> None:
    """Refuses a GPU that torch does not see; ``on_gpus`` says that ``auto`` would take one.

    Raises:
        UsageError: naming how many it sees.
    """
    if not (name.startswith("cuda") or on_gpus):
        return
    count, number = torch.cuda.device_count(), int(name.partition(":")[2] or 0)
    if number >= count:
        raise UsageError(
            f"--device {name}: torch sees {count} GPU(s) here. Use --device cpu, or see 'doctor'."
        )


@dataclass(frozen=True)
class Counts:
    """How many images pre-train, and how many of them have labels."""

    pretrain: int
    labelled: int


# --- images ---------------------------------------------------------------------------------------


def check_images(config: RunConfig, resources: Resources, place: Place) -> tuple[Counts, list[str]]:
    """Runs the gate on a study's images; on built-in ones by what is known of their labels.

    Returns:
        How many images there are, and what a reader should know of them.

    Raises:
        DataError: if they do not pass.
    """
    memory.check_images(config.data.train_images + config.data.test_images, config.model, place)
    labels = outline.train_labels(config.data)
    if labels is not None and not resources.data_root:
        gate.check_budget(labels, config)
        return Counts(len(labels), len(labels)), []
    images = load(config, resources.data_root, resources.strict_images)
    gate.check_budget(images.train.labels, config)
    return Counts(len(images.pretrain), len(images.train)), images.notes()


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


def check_model(config: RunConfig, resources: Resources, place: Place, images: Counts) -> None:
    """Builds method, plug-ins and classifier on the meta device, draws masks, counts memory.

    Raises:
        UsageError: if a part cannot be built, or the sizes make no sense.
    """
    bare = _built(lambda: registry.METHODS.load(config.method)(config.model, config.hyper))
    if not resources.init_path:
        check_masks(bare, config)
    trial, method = Trial(bare, config), bare
    for name, settings in config.plugins:
        method = _built(partial(registry.PLUGINS.load(name), method, settings))
        if hasattr(settings, "check_layers"):
            settings.check_layers(trial.layers, config.model.heads)
    stages = _stages(config, trial, method, resources, images.labelled)
    memory.check(stages, images.pretrain, resources, place)
    if resources.init_path:
        released.encoder_weights(method, Path(resources.init_path))


def _stages(
    config: RunConfig, trial: Trial, method: Any, resources: Resources, labelled: int
) -> Iterator[Stage]:
    """Whatever is trained as a whole, with what it keeps."""
    if not resources.init_path:
        whole = needs_of(config.hyper).together == 0
        yield Stage("pre-training", config.pretrain, method, trial.kept, whole)
    for name, recipe in config.tasks:
        if hasattr(recipe, "drop_path"):
            options = ClassifierOptions(classes=2, drop_path=recipe.drop_path, pool=recipe.pool)
            model = _built(partial(_start_classifier, method, options))
            most = config.data.labels or labelled
            yield Stage(name, recipe, model, trial.finetuning(options), most=most)


def _start_classifier(method: Any, options: ClassifierOptions) -> Any:
    model = method.classifier(options)
    model.load_encoder(method.encoder().state_dict())
    return model


def _built(make: Callable[[], Any]) -> Any:
    """What ``make`` builds, with shapes and no values."""
    try:
        with torch.device("meta"):
            return make()
    except UsageError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
        raise UsageError(f"the model cannot be built from these settings: {error}") from error


def check_masks(method: Any, config: RunConfig) -> None:
    """Draws masks for some images.

    Raises:
        UsageError: if one hides nothing or everything, or does not fit the patches; or another
            number than the method's ``hidden_count``, if it has one: it would read what is hidden.
    """
    patches = config.model.patches
    images = min(MASKS, max(1, MASKED_PATCHES // patches))
    stream = Streams(config.suite_seed, config.seed).samples("mask", 0, torch.arange(images))
    hidden = method.draw_hidden(stream)
    if tuple(hidden.shape) != (images, patches):
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
    said = getattr(method, "hidden_count", None)
    if said is not None and bool((counts != said).any()):
        raise UsageError(
            f"its masks hide {int(counts.min())} to {int(counts.max())} patches of an image and "
            f"its hidden_count is {said}, so that some would be taken for visible ones: let it "
            "say what draw_hidden hides."
        )
