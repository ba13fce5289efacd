"""``show``: what a run or a checkpoint makes of masked images, as a picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.commands.flags import add_out_flag
from bench.errors import UsageError
from bench.plan import resolve, typed
from bench.plan.config import RunConfig
from bench.plan.layers import load_preset
from bench.store.shapes import CONFIG, read_state
from bench.store.store import Store
from bench.work.flags import between

PICTURES = (".png", ".pdf", ".svg")
"""Endings of what is drawn."""


def show_reconstructions(args: argparse.Namespace) -> int:
    """Draws original, masked and reconstructed images of runs or checkpoint files, side by side.

    Raises:
        UsageError: if the runs do not share data, image size and seed, so that masks would differ,
            or the picture's name has none of the endings :data:`PICTURES`.
    """
    target = Path(args.to) if args.to else None
    if target and not target.suffix:
        target = target.with_suffix(PICTURES[0])
    if target and target.suffix not in PICTURES:
        raise UsageError(f"--to '{target}' ends in none of {', '.join(PICTURES)}.")
    places = [_place(args, what) for what in args.what]
    configs = [stored_config(folder, args, str(file or what)) for what, folder, file in places]
    _check_comparable(configs)
    root = typed.place_of(configs[0].data.name, args.data)

    from bench.work.pictures import Pictures, draw, file_weights, reconstruct, run_weights

    shown: dict[str, Pictures] = {}
    for (_, folder, file), config in zip(places, configs, strict=True):
        weights = file_weights(config, file) if file else run_weights(folder)
        title = f"{config.arm}, {file.name if file else f'{config.pretrain.epochs} epochs'}"
        shown[title if title not in shown else f"{title} ({len(shown) + 1})"] = reconstruct(
            config, weights, root, args.images
        )[0]
    target = target or places[0][1] / "reconstructions.png"
    draw(shown, target)
    print(target)
    return 0


def _place(args: argparse.Namespace, what: str) -> tuple[str, Path, Path | None]:
    """What was named, its folder, and the checkpoint if it is a file."""
    path = Path(what)
    if os.path.isfile(path):
        return what, path.parent, path
    return what, Store(Path(args.out)).pretraining(what, "run or file").path, None


def _check_comparable(configs: list[RunConfig]) -> None:
    """Masks come from the seed and the method: runs side by side share what decides them."""
    facts = [(c.data.name, c.model.image_size, c.suite_seed, c.seed, c.method) for c in configs]
    if len(set(facts)) > 1:
        raise UsageError(
            "runs side by side need the same masks, so one data set, image size, method and seed: "
            f"{', '.join(f'{c.arm} on {c.data.name}, seed {c.seed}' for c in configs)}."
        )


def stored_config(folder: Path, args: argparse.Namespace, what: str) -> RunConfig:
    """The configuration stored beside the weights, or that of ``--method`` and ``--preset``.

    Raises:
        UsageError: if neither is there, or there are settings without ``--method``.
    """
    if args.overrides and not args.method:
        raise UsageError(
            f"'{args.overrides[0]}' is read with --method alone: a run has its own settings."
        )
    for place in (folder, *folder.parents[:2]):
        stored = read_state(place / "config.json", CONFIG)
        if stored and "config" in stored and not args.method:
            return resolve.run_from_plain(stored["config"])
    if not args.method:
        raise UsageError(
            f"'{what}' lies in no run folder: say --method and --preset, as "
            "'FILE --method mae --preset imagenet --data imagenet:DIR'."
        )
    layers = (*load_preset(args.preset), typed.parse_overrides(args.overrides))
    return resolve.Resolver(layers).resolve(typed.parse_arm(args.method), 1, 0)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What ``show`` takes."""
    add_out_flag(parser)
    parser.add_argument(
        "what", nargs="+", metavar="RUN", help="run ids or beginnings, side by side, or a file"
    )
    add = parser.add_argument
    add("--images", type=between(1, 100), default=6, metavar="N", help="how many test images")
    parser.add_argument("--to", metavar="PNG", help="the picture (default: beside the weights)")
    parser.add_argument("--data", metavar="NAME:DIR", help="folder of the run's data set")
    parser.add_argument("--method", metavar="M", help="for a released checkpoint: its method")
    parser.add_argument("--preset", default="imagenet", help="and the preset of its size")
