"""``show``: what a run or a checkpoint makes of masked images, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import UsageError, unknown
from bench.plan import resolve, typed
from bench.plan.config import RunConfig
from bench.plan.layers import load_preset
from bench.store.files import read_json
from bench.store.store import Store


def show_reconstructions(args: argparse.Namespace) -> int:
    """Draws original, masked and reconstructed images of a run or checkpoint file."""
    path = Path(args.what)
    given = path.is_file()
    folder = path.parent if given else _run_folder(Store(Path(args.out)), args.what)
    config = stored_config(folder, args, args.what)
    root = typed.parse_data(args.data)[1] if args.data else ""

    from bench.work.pictures import draw, reconstruct, run_weights
    from bench.work.released import read_weights

    weights = read_weights(path) if given else run_weights(folder)
    pictures, _ = reconstruct(config, weights, root, args.images)
    target = Path(args.to) if args.to else folder / "reconstructions.png"
    title = f"{config.arm}, {path.name if given else f'{config.pretrain.epochs} epochs'}"
    draw(pictures, title, target)
    print(target)
    return 0


def _run_folder(store: Store, what: str) -> Path:
    """The pre-training run of this id, or of a cell, by the beginning of its id.

    Raises:
        UsageError: if there is none, or more than one.
    """
    ids = [f.run_id for f in store.folders()]
    found = [i for i in ids if i.startswith(what)]
    if len(found) != 1 and what not in found:
        raise unknown("run or file", what, found[:8] or ids[:8], "Give enough of the id.")
    folder = store.run(what if what in found else found[0])
    parent = (folder.config() or {}).get("parent")
    return store.run(parent).path if parent else folder.path


def stored_config(folder: Path, args: argparse.Namespace, what: str) -> RunConfig:
    """The configuration stored beside the weights, or that of ``--method`` and ``--preset``.

    Raises:
        UsageError: if neither is there.
    """
    for place in (folder, *folder.parents[:2]):
        stored = read_json(place / "config.json")
        if stored and "config" in stored and not args.method:
            return resolve.run_from_plain(stored["config"])
    if not args.method:
        raise UsageError(
            f"'{what}' lies in no run folder: say --method and --preset, as "
            "'FILE --method mae --preset imagenet --data imagenet:DIR'."
        )
    layers = (*load_preset(args.preset), typed.parse_overrides(args.overrides))
    return resolve.Resolver(layers).resolve(typed.parse_arm(args.method), 1, 0)
