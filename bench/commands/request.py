"""From parsed arguments to a checked request: nothing is computed before it stands."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import UsageError
from bench.plan import fairness, resolve
from bench.plan.config import Resources
from bench.plan.identity import digest
from bench.plan.layers import check_keys, load_preset, load_recipe, load_yaml, merged
from bench.plan.study import Study, make_study, plain_config
from bench.plan.typed import Arm, parse_arms, parse_data, parse_epochs, parse_overrides, parse_seeds
from bench.store.store import Store

SMALL_PX = 64
"""Below this image size a run computes fastest on one thread, with others beside it."""


@dataclass(frozen=True)
class Request:
    """A study as asked for: its plan, where it is stored, and how it is to be computed."""

    study: Study
    store: Store
    name: str
    resources: Resources
    resolver: resolve.Resolver
    arms: tuple[Arm, ...]
    warnings: list[str]

    @property
    def folder(self) -> Path:
        """Folder of the study's plan and tables."""
        return self.store.root / "studies" / self.name


def make_request(args: argparse.Namespace) -> Request:
    """Resolves and checks everything before anything is computed.

    Raises:
        UsageError: for anything wrong with the request.
    """
    file = load_yaml(Path(args.config)) if args.config else ()
    data = parse_data(args.data) if args.data else ("", "")
    named = file[-1].get("extends") if file else None
    preset = args.preset or named or _preset_for(data[0])
    base = load_preset(preset) if args.preset or not named else ()
    values = merged([*base, *file])
    recipe = load_recipe(str(_first(args.recipe, values.get("recipe"), "")), values)
    typed = parse_overrides(args.overrides)
    check_keys(merged([*file, recipe]), "the suite file")
    check_keys(typed, "the settings")
    layers = [*base, *file, recipe, _sizes_of_another(data[0], values), typed]
    layers += [{"data": {"name": data[0]}}] if data[0] else []
    suite_seed = _first(args.suite_seed, values.get("suite_seed"), 0)
    resolver = resolve.Resolver(tuple(layers), suite_seed, _content(args.init))
    arms = parse_arms(_wanted(args.methods, values, "methods"))
    budgets = parse_epochs(_wanted(args.epochs, values, "epochs"))
    seeds = parse_seeds(_wanted(args.seeds, values, "seeds"))
    _check_init(args.init, arms, budgets)
    study = Study(
        cells=make_study(resolver, arms, budgets, seeds),
        preset=preset,
        target_epochs=_target(_first(args.target, values.get("target")), budgets),
        margin=float(_first(args.margin, values.get("margin"), 0.1)),
    )
    _check_data(study, data[1])
    store = Store(Path(args.out))
    resources = _resources(args, study, data[1])
    warnings = fairness.check([c.config for c in study.cells], values.get("trials", {}))
    name = args.name or study_name(study)
    return Request(study, store, name, resources, resolver, tuple(arms), warnings)


def _sizes_of_another(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Takes back the sizes that a preset gives its own data set where ``--data`` names another."""
    if name in ("", values.get("data", {}).get("name")):
        return {}
    return {"data": {"train_images": 0, "test_images": 0, "classes": 0}}


def _preset_for(data: str) -> str:
    if not data:
        return "digits"
    return registry.dataset(data).preset


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _wanted(given: Any, values: Mapping[str, Any], key: str) -> Any:
    value = given if given is not None else values.get(key)
    if value is None:
        raise UsageError(f"no {key} given. Write --{key}; see 'python -m bench.run --help'.")
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return str(value)


def _target(target: int | None, budgets: Sequence[int]) -> int | None:
    if target is not None and target not in budgets:
        raise UsageError(f"--target {target} is not among the budgets {list(budgets)}.")
    return target


def _content(init: str) -> str:
    """The content hash by which a checkpoint counts, or nothing."""
    if not init:
        return ""
    from bench.work.released import fingerprint

    return fingerprint(Path(init))


def _check_init(init: str, arms: Sequence[Arm], budgets: Sequence[int]) -> None:
    """A given checkpoint is one encoder: of one bare method, at the epochs it was trained for."""
    if init and (len(arms) != 1 or arms[0].plugins or len(budgets) != 1):
        raise UsageError(
            "--init evaluates one checkpoint: give one method without plug-ins, and as --epochs "
            "the epochs it was pre-trained for."
        )


def _check_data(study: Study, root: str) -> None:
    name = study.cells[0].config.data.name
    row = registry.dataset(name)
    if row.needs_root and not root:
        raise UsageError(
            f"preset '{study.preset}' needs the data set '{name}': add --data {name}:DIR."
        )


def _resources(args: argparse.Namespace, study: Study, root: str) -> Resources:
    cores = len(os.sched_getaffinity(0))
    small = study.cells[0].config.model.image_size < SMALL_PX
    threads = args.threads or (1 if small else cores)
    workers = args.workers if args.workers is not None else (0 if small else max(1, cores - 1))
    return Resources(
        device=args.device,
        threads=threads,
        workers=workers,
        micro_batch=args.batch_size,
        data_root=os.path.abspath(root) if root else "",
        init_path=str(Path(args.init).resolve()) if args.init else "",
        checkpoint_every_s=args.checkpoint_every,
        strict_images=args.strict_images,
    )


def study_name(study: Study) -> str:
    """Readable folder name of a study: data, arms and budgets."""
    configs = [c.config for c in study.cells]
    arms = "_".join(dict.fromkeys(c.arm for c in configs))
    budgets = "-".join(str(e) for e in sorted({c.pretrain.epochs for c in configs}))
    data = configs[0].data.name.replace("/", ".")
    prefix = study.preset if study.preset.startswith(data) else f"{study.preset}-{data}"
    settings = digest(*sorted({_without_budget(c) for c in configs}))[:6]
    name = f"{prefix}_{arms}_e{budgets}_{settings}"
    clean = "".join(c if c.isalnum() or c in "+-_." else "." for c in name)
    return clean if len(clean) <= 120 else f"{clean[:100]}_{digest(clean)}"


def _without_budget(config: Any) -> str:
    plain = plain_config(config)
    plain["pretrain"].pop("epochs")
    plain.pop("seed")
    return json.dumps(plain, sort_keys=True)
