"""The recipe of a study on images of one's own: taken from its file, or sized from what is there.

The file lies beside the results and belongs to the user: the same command takes it up again, edited
or not, also on another machine. A recipe is sized from the images and from whether there is a GPU,
never from how busy the machine is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import registry
from bench.errors import DataError
from bench.machine import memory
from bench.machine.cores import usable_cores
from bench.plan import sized
from bench.plan.identity import digest
from bench.plan.keys import Layer
from bench.plan.layers import load_yaml, merged
from bench.plan.loading import load_section
from bench.plan.sections import DataConfig
from bench.plan.sized import Facts
from bench.plan.typed import parse_overrides
from bench.plan.wish import Wish
from bench.store.files import write_bytes
from bench.store.store import Store

FOLDER = "recipes"
"""Where in the results folder such files lie."""

SIDE = 32
"""Image size asked for before one is chosen; files come as they are."""


@dataclass(frozen=True)
class Sizing:
    """A suite file for images of one's own, and where it lies or is to lie.

    ``facts`` is what was seen, None where the file was there already.
    """

    path: Path
    layer: Mapping[str, Any]
    facts: Facts | None
    gpu: bool

    def keep(self) -> None:
        """Writes the file, unless it is there."""
        if not self.path.exists():
            write_bytes(self.path, self.text().encode())

    def text(self) -> str:
        """The file's content."""
        seen = self.seen()
        head = [
            f"# For a first verdict on {seen}.",
            "# Yours to edit: the same command takes it up.",
        ]
        body = yaml.safe_dump(dict(self.layer), sort_keys=False, default_flow_style=None, width=100)
        return "\n".join([*head, body])

    def seen(self) -> str:
        """What was looked at, in words."""
        facts = self.facts
        if facts is None:
            return f"recipe as sized or edited before; {self.machine()}"
        colour = "grey" if facts.grey else "colour"
        classes = len([n for n in facts.counts if n])
        more = f", {facts.unlabelled} unlabelled ones" if facts.unlabelled else ""
        return (
            f"{facts.labelled} training and {facts.tests} test images of {classes} classes{more}, "
            f"{facts.side} px, {colour}; {self.machine()}"
        )

    def machine(self) -> str:
        """What there is to compute with; of it the recipe depends on the GPU alone."""
        cores, room = usable_cores(), memory.physical() / 2**30
        return f"{cores} cores, {room:.0f} GiB, {'a GPU' if self.gpu else 'no GPU'}"


def chosen(wish: Wish) -> Layer:
    """What a wish's suite file and settings say of the data."""
    file = load_yaml(Path(wish.config)) if wish.config else ()
    found: Layer = merged([*file, parse_overrides(wish.settings)]).get("data") or {}
    return found


def find(name: str, root: str, store: Store, gpu: bool, data: Layer) -> Sizing:
    """The recipe for the data set ``name`` in ``root``, of which ``data`` says how it is cut.

    ``gpu`` says whether its runs will be computed on one.

    Raises:
        DataError: if its images cannot be read.
        UsageError: if the file that is there cannot.
    """
    from bench.data.look import look

    images = _images(name, root, data)
    called = "".join(c if c.isalnum() or c in "-_" else "." for c in Path(root).name or name)
    path = store.root / FOLDER / f"{called[:40]}-{digest(name, images.fingerprint())[:8]}.yaml"
    if path.is_file():
        return Sizing(path, load_yaml(path)[-1], None, gpu)
    facts = look(images, name)
    return Sizing(path, sized.sized(facts, gpu), facts, gpu)


def facts_of(name: str, root: str, data: Layer) -> Facts | None:
    """What can be seen of a data set; None where that is for others to refuse."""
    from bench.data.look import look

    with contextlib.suppress(DataError):
        return look(_images(name, root, data), name)
    return None


def _images(name: str, root: str, data: Layer) -> Any:
    sizes = {size: data[size] for size in registry.sizes(name) if size in data}
    values = {"name": name, "mean": (0.5,) * 3, "std": (0.5,) * 3, **sizes}
    plain = load_section(DataConfig, values, "data")
    return registry.load(registry.dataset(name).target)(plain, root, SIDE)
