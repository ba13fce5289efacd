"""``analyze``: heterogeneity and attention mass against depth, and the loss's initial plateau.

Reads what every run logs, baseline and variant alike, from its initialisation (epoch 0) on; a
checkpoint file, also one released by the authors, is measured on test images. What it is
for: higher heterogeneity between masked and visible tokens in early layers is said to go with
faster convergence (arXiv 2404.08330).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from tabulate import tabulate

from bench.commands.flags import add_out_flag
from bench.commands.show import stored_config
from bench.errors import UsageError
from bench.plan import typed
from bench.report import draw as figures
from bench.stats.plateau import leaves_plateau
from bench.store.files import write_bytes
from bench.store.shapes import Shape, misfits
from bench.store.store import Store
from bench.work.flags import between

SEED_AND_HASH = re.compile(r"-s\d+-[0-9a-f]+$")
"""Ends the name of a run's folder."""

LABEL_WIDTH = 44
"""Characters of a line in a plot's legend."""

LAYERED = {
    "heterogeneity": "heterogeneity H (entropy)",
    "heterogeneity_cosine": "heterogeneity H (cosine)",
    "mass_to_masked": "attention of visible tokens on masked ones",
    "masked_to_masked": "attention of masked tokens on other masked ones",
    "masked_to_visible": "attention of masked tokens on visible ones",
}
HEADS = {
    "heterogeneity": "H (entropy)",
    "heterogeneity_cosine": "H (cosine)",
    "mass_to_masked": "visible to masked",
    "masked_to_masked": "masked to masked",
    "masked_to_visible": "masked to visible",
}

MEASURED: Shape = {"epoch": int, "token_distance": float, **dict.fromkeys(HEADS, list[float])}
NEEDED = ("epoch", "token_distance", "heterogeneity")
"""What a logged line of measurements holds, and what no such line lacks."""


def analyze(args: argparse.Namespace) -> int:
    """Prints and draws the layers of each run: at initialisation and at its logged epochs.

    Raises:
        UsageError: for a name that is no run, or a run that has logged nothing yet.
    """
    store = Store(Path(args.out))
    folder = Path(args.to) if args.to else store.root / "layers"
    series = {
        name: _measured(Path(name), args) if os.path.isfile(name) else _points(store, name)
        for name in args.runs
    }
    plateaus = {name: _plateau(store, name) for name in args.runs if not Path(name).is_file()}
    for name, points in series.items():
        print(f"\n{name}\n{_table(points)}")
        if name in plateaus:
            print(_leaving(plateaus[name]))
    measured = [key for key in LAYERED if any(key in p for ps in series.values() for p in ps)]
    for key in measured:
        plot = _plot(key, LAYERED[key], series)
        for form, data in figures.draw(plot, ("png", "svg")).items():
            write_bytes(folder / f"{key}.{form}", data)
    write_bytes(folder / "layers.json", json.dumps(series, indent=1).encode())
    write_bytes(folder / "plateau.json", json.dumps(plateaus, indent=1).encode())
    pictures = ", ".join(f"{key}.png" for key in measured)
    print(f"\nsaved in {folder}: {pictures}, layers.json, plateau.json")
    return 0


def _measured(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The layers of a checkpoint file, on test images of ``--data`` or on procedural ones."""
    config = stored_config(path.parent, args, str(path))
    root = typed.parse_data(args.data)[1] if args.data else ""
    if not args.data:
        images = {"name": "procedural", "train_images": 4, "test_images": args.images}
        config = replace(config, data=replace(config.data, **images, classes=4))

    from bench.work.pictures import file_weights, measure_layers

    weights = file_weights(config, path)
    return [{"epoch": "file", **measure_layers(config, weights, root, args.images)}]


def _points(store: Store, name: str) -> list[dict[str, Any]]:
    """Measurements of a run by epoch, the first (epoch 0) at initialisation."""
    logged = store.pretraining(name).metrics()
    found = [m for m in logged if {*NEEDED} <= m.keys() and not misfits(m, MEASURED)]
    if not found:
        raise UsageError(
            f"run '{name}' has logged no layers: not yet, or no token reads its mask tokens."
        )
    return found


def _plateau(store: Store, name: str) -> dict[str, int] | None:
    """Epochs and steps done when a run's loss left its initial plateau; None if it did not."""
    logged = [m for m in store.pretraining(name).metrics() if m.get("stage") == "pretrain"]
    done = [m for m in logged if {"epoch", "step"} <= m.keys() and m.get("loss") is not None]
    first = leaves_plateau([m["loss"] for m in done])
    return None if first is None else {key: done[first][key] for key in ("epoch", "step")}


def _leaving(plateau: Mapping[str, int] | None) -> str:
    if plateau is None:
        return "the loss did not leave its initial plateau."
    epoch, step = plateau["epoch"], plateau["step"]
    return f"the loss had left its initial plateau after epoch {epoch}, step {step}."


def _table(points: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [p["epoch"], f"{p['token_distance']:.2f}", *(_join(p.get(key, ())) for key in HEADS)]
        for p in points
    ]
    depth = len(points[0]["heterogeneity"])
    layers = f"layer {' '.join(str(i + 1) for i in range(depth))}"
    heads = ["epoch", "mask-token\ndistance", *(f"{head}\n{layers}" for head in HEADS.values())]
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True)


def _join(values: Sequence[float]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


def _label(name: str, point: Mapping[str, Any]) -> str:
    """What a line of a plot is about; the same for runs whose names differ in their seed alone."""
    if point["epoch"] == "file":
        return Path(name).name
    return f"{name.removeprefix('pre-')}, epoch {point['epoch']}"


def _names(runs: Iterable[str]) -> dict[str, str]:
    """How a run is named in a plot: without seed and hash, where none has both alike."""
    short = {name: SEED_AND_HASH.sub("", name) for name in runs}
    seeds = Counter((short[name], name.rpartition("-")[0]) for name in short)
    twice = {what for (what, _), count in seeds.items() if count > 1}
    return {name: name if what in twice else what for name, what in short.items()}


def _plot(key: str, title: str, series: Mapping[str, Sequence[Mapping[str, Any]]]) -> figures.Plot:
    """First and last measurement against depth, the mean over seeds with their range."""
    found: dict[tuple[str, int], list[Sequence[float]]] = {}
    names = _names(series)
    for name, points in series.items():
        for point in [points[0], *points[1:][-1:]]:
            if key in point:
                what = _label(names[name], point), len(point[key])  # of one depth
                found.setdefault(what, []).append(point[key])
    lines = [_line(label, runs) for (label, _), runs in found.items()]
    return figures.Plot(
        name=key,
        title=title,
        x_label="layer that carries mask tokens",
        series=tuple(lines),
        ticks=tuple(sorted({x for line in lines for x in line.x})),
    )


def _line(label: str, runs: Sequence[Sequence[float]]) -> figures.Series:
    layers = list(zip(*runs, strict=True))
    several = len(runs) > 1
    return figures.Series(
        label=textwrap.fill(f"{label}, {len(runs)} seeds" if several else label, LABEL_WIDTH),
        x=tuple(float(i + 1) for i in range(len(layers))),
        y=tuple(mean(values) for values in layers),
        low=tuple(min(values) for values in layers) if several else (),
        high=tuple(max(values) for values in layers) if several else (),
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``analyze`` takes."""
    add_out_flag(parser)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run ids, or checkpoint files")
    add = parser.add_argument
    add("--images", type=between(1, 1024), default=64, metavar="N", help="test images, for a file")
    parser.add_argument("--data", metavar="NAME:DIR", help="their data set (default: procedural)")
    parser.add_argument("--method", metavar="M", help="for a released checkpoint: its method")
    parser.add_argument("--preset", default="imagenet", help="and the preset of its size")
    parser.add_argument("--to", metavar="DIR", help="folder for the plots (OUT/layers)")
