"""What a user asks for, as values: a study, and the means to compute it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from bench import registry
from bench.api.rules import Epochs, Seed, Text
from bench.errors import UsageError, unknown
from bench.plan import fairness
from bench.plan.config import RunConfig
from bench.plan.identity import digest
from bench.plan.keys import Layer, Margin, check_keys, check_typed
from bench.plan.layers import flat, load_preset, load_recipe, load_yaml, merged
from bench.plan.loading import coerce
from bench.plan.resolve import Resolver, followed
from bench.plan.sized import LARGE, OWN, Facts, fitted
from bench.plan.study import Cell, Study, make_study, plain_config
from bench.plan.typed import (
    Arm,
    parse_arm,
    parse_arms,
    parse_data,
    parse_epochs,
    parse_overrides,
    parse_seeds,
)

StudyName = Annotated[
    str, Text(r"[\w@+(][\w@+() .,-]{0,119}", "a name of letters, digits and @+().,- of at most 120")
]
"""Name of a study's folder."""

ALL = "all"
"""Where ``report --all`` writes, in place of a study's name."""

Words = str | Sequence[str]
"""As typed: ``mae,simmim``, or several such words."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A study as typed; what is not said comes from the suite file, then from the preset.

    ``data`` is a name with a folder where it needs one, ``tasks`` are evaluation tasks (else
    the standing ones), ``config`` a suite file, ``settings`` are ``SECTION.KEY=VALUE`` and
    ``init`` a checkpoint to evaluate instead of pre-training.
    """

    methods: Words | None = None
    epochs: Words | None = None
    seeds: Words | None = None
    data: str = ""
    preset: str = ""
    recipe: str | None = None
    tasks: Words | None = None
    config: str = ""
    settings: Sequence[str] = ()
    suite_seed: int | None = None
    target: int | None = None
    baseline: str | None = None
    margin: float | None = None
    init: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Means:
    """How a study is computed; nothing here can move a number.

    ``jobs``, ``threads`` and ``workers`` are chosen for the machine unless given. ``site`` is a
    file with a cluster's settings, ``settings`` those given by flags.
    """

    launcher: str = "local"
    jobs: int = 0
    threads: int = 0
    workers: int | None = None
    device: str = "auto"
    micro_batch: int = 0
    retry: bool = False
    detach: bool = False
    strict_images: bool = False
    checkpoint_every_s: float = 60.0
    trackers: Sequence[str] = ()
    compile: bool = False
    site: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A wish that has been resolved and checked: its study, and from what it was made.

    ``data_root`` is the folder of the images, ``init`` the path of a given checkpoint, ``idle`` a
    line on settings that act on no arm.
    """

    study: Study
    name: str
    resolver: Resolver
    arms: tuple[Arm, ...]
    warnings: list[str]
    data_root: str
    init: str
    idle: list[str]

    def to_plain(self) -> dict[str, Any]:
        """What a study's folder freezes."""
        return {**self.study.to_plain(), "warnings": self.warnings}


def leaves_open(wish: Wish) -> tuple[str, str] | None:
    """The data set and its folder for which a recipe has to be sized; None where one is chosen.

    Raises:
        UsageError: for data or a suite file that cannot be read.
    """
    data, root = parse_data(wish.data) if wish.data else ("", "")
    file = load_yaml(Path(wish.config)) if wish.config and not wish.preset else ()
    if not root or wish.init or (file and file[-1].get("extends")):
        return None
    return (data, root) if (wish.preset or _preset_of(wish, data)) == OWN else None


def borrows(wish: Wish) -> tuple[str, str] | None:
    """The data set and its folder where the preset is one of other images, and may not fit these.

    Raises:
        UsageError: for data, a preset or a suite file that cannot be read.
    """
    data, root = parse_data(wish.data) if wish.data else ("", "")
    _, base, _ = _base(wish, data, None)
    values = merged(base)
    other = values.get("data", {}).get("name") not in (None, data)
    special = values.get("data", {}).get("labels") or values.get("model", {}).get("channels") != 3
    return (data, root) if root and other and special else None


def plan_wish(
    wish: Wish, init_hash: str = "", sized: Layer | None = None, facts: Facts | None = None
) -> Planned:
    """Resolves and checks everything before anything is computed.

    ``init_hash`` is the content hash by which the checkpoint ``wish.init`` counts, ``sized`` the
    layer that stands for a preset where a wish leaves that open (:func:`leaves_open`), ``facts``
    what was seen of images to which a preset of others is applied (:func:`borrows`).

    Raises:
        UsageError: for anything wrong with the wish.
    """
    data, root = parse_data(wish.data) if wish.data else ("", "")
    preset, layers, values, given, left_out = _layers(wish, data, sized, facts)
    suite_seed = coerce(_first(wish.suite_seed, values.get("suite_seed"), 0), Seed, "suite_seed")
    resolver = Resolver(tuple(layers), suite_seed, init_hash)
    arms = parse_arms(_wanted(wish.methods, values, "methods"))
    typed = parse_overrides(wish.settings)
    _check_read(typed, resolver.tasks(), arms)
    budgets = parse_epochs(_wanted(wish.epochs, values, "epochs"))
    seeds = parse_seeds(_wanted(wish.seeds, _one_seed(values), "seeds"))
    _check_init(wish.init, arms, budgets)
    cells = make_study(resolver, arms, budgets, seeds)
    study = Study(
        cells=cells,
        preset=preset,
        baseline=_baseline(_first(wish.baseline, values.get("baseline"), ""), cells, resolver),
        target_epochs=_target(_first(wish.target, values.get("target")), budgets),
        margin=coerce(_first(wish.margin, values.get("margin"), 0.1), Margin, "margin"),
    )
    _check_data(study, root)
    configs = [c.config for c in cells]
    trials = _trials(values.get("trials") or {}, cells, resolver)
    warnings = [*left_out, *fairness.check(configs, trials, study.baseline)]
    name = coerce(wish.name or study_name(study), StudyName, "--name")
    if name == ALL:
        raise UsageError(f"--name {ALL} is where 'report --all' writes. Give another.")
    idle = idle_settings(given, arms)
    return Planned(study, name, resolver, tuple(arms), warnings, root, wish.init, idle)


def _layers(
    wish: Wish, data: str, sized: Layer | None, facts: Facts | None
) -> tuple[str, list[Layer], dict[str, Any], Layer, list[str]]:
    """The preset's name, all layers of settings, what they say beside those, which of it a user
    gave, what is dropped.
    """
    preset, base, file = _base(wish, data, sized)
    changes, left_out = fitted(merged(base), facts) if facts else ({}, [])
    base = (*base, changes)
    values = merged([*base, *file])
    recipe = load_recipe(str(_first(wish.recipe, values.get("recipe"), "")), values)
    typed = parse_overrides(wish.settings)
    check_keys(merged([*file, recipe]), "the suite file")
    check_typed(typed)
    sizes, dropped = _sizes_of_another(data, values)
    layers: list[Layer] = [*base, *file, recipe, sizes, typed]
    layers += [{"data": {"name": data}}] if data else []
    layers += [{"tasks": wish.tasks}] if wish.tasks else []
    return preset, layers, values, merged([*file, typed]), [*left_out, *dropped]


def _base(
    wish: Wish, data: str, sized: Layer | None
) -> tuple[str, tuple[Layer, ...], tuple[Layer, ...]]:
    """The preset's name, its layers, and those of the suite file."""
    file = load_yaml(Path(wish.config)) if wish.config else ()
    named = file[-1].get("extends") if file else None
    if named and wish.preset and wish.preset != named:
        raise UsageError(
            f"'{wish.config}' extends '{named}', so --preset {wish.preset} would not count. "
            "Leave one of the two."
        )
    preset = wish.preset or named or _preset_of(wish, data)
    if sized is not None:
        preset = sized.get("extends") or preset
        return preset, (*load_preset(preset), sized), file
    if named:
        return preset, file[:-1], file[-1:]
    return preset, load_preset(preset), file


def _preset_of(wish: Wish, data: str) -> str:
    """The preset of a data set; of a released checkpoint's images that of the releases."""
    preset = registry.dataset(data).preset if data else "digits"
    return LARGE if wish.init and preset == OWN else preset


def _check_read(typed: Mapping[str, Any], tasks: Sequence[str], arms: Sequence[Arm]) -> None:
    """A setting of a task or plug-in that the study does not have would silently do nothing."""
    for name in typed:
        if name in registry.TASKS.ordered() and name not in tasks:
            raise UsageError(
                f"'{name}' is not among the evaluations of this study ({', '.join(tasks)}). "
                f"Add it: --tasks {','.join([*tasks, name])}."
            )
    for method, name in _unread(typed, arms):
        raise UsageError(
            f"'{method}{'.' * bool(method)}{name}' would be ignored: no arm of this study is "
            f"{method or 'METHOD'}+{name}. Add one to --methods, or leave it."
        )


def _unread(layer: Layer, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Sections of plug-ins that no arm has, each with the method inside which it stands, if any."""
    there = {(method, wrap.name) for a in arms for wrap in a.plugins for method in ("", a.method)}
    sections = [("", name) for name in layer]
    sections += [(m, n) for m in layer if m in registry.METHODS.names() for n in layer[m]]
    return [s for s in sections if s[1] in registry.PLUGINS.names() and s not in there]


def idle_settings(given: Layer, arms: Sequence[Arm]) -> list[str]:
    """Which settings act on no arm, in one line: those of methods and plug-ins that none has.

    A study tells them and does not refuse: scripts share settings, and suite files are cut down.
    """
    methods = {a.method for a in arms}
    idle: list[tuple[Layer, str]] = []
    for name in (m for m in given if m in registry.METHODS.names() and m not in methods):
        takers = [m for m in methods if registry.recipe_of(m) == name]
        taken = {key for m in takers for key in followed(m, given)}
        left = {k: v for k, v in given[name].items() if k not in taken}
        idle.append(({name: left}, f"no arm is of {name}"))
    for method, name in _unread(given, arms):
        if method in methods:
            idle.append(({method: {name: given[method][name]}}, f"no arm is {method}+{name}"))
        elif not method:
            idle.append(({name: given[name]}, f"no arm is METHOD+{name}"))
    said = [
        f"{', '.join(names)} change{'s' * (len(names) == 1)} nothing here: {why}"
        for settings, why in idle
        if (names := flat(settings))
    ]
    return ["; ".join(said)] if said else []


def _sizes_of_another(name: str, values: Mapping[str, Any]) -> tuple[Layer, list[str]]:
    """Takes back the sizes that a preset gives its own data set where ``--data`` names another."""
    own = values.get("data", {})
    if name in ("", own.get("name")):
        return {}, []
    sizes = ("train_images", "test_images", "classes")
    given = ", ".join(f"data.{size}={own[size]}" for size in sizes if own.get(size))
    said = [f"{given} left out: meant for {own.get('name')}, not for {name}"] if given else []
    return {"data": dict.fromkeys(sizes, 0)}, said


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def _wanted(given: Any, values: Mapping[str, Any], key: str) -> Any:
    value = given if given is not None else values.get(key)
    if value is None:
        raise UsageError(f"no {key} given. Write --{key}; see 'python -m bench.run --help'.")
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return str(value)


def _one_seed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A suite file's list of one seed is that seed, not a count."""
    seeds = values.get("seeds")
    if isinstance(seeds, list) and len(seeds) == 1 and str(seeds[0]).isdecimal():
        return {**values, "seeds": f"{seeds[0]}-{seeds[0]}"}
    return values


def _target(target: Any, budgets: Sequence[int]) -> int | None:
    target = None if target is None else coerce(target, Epochs, "target")
    if target is not None and target not in budgets:
        raise UsageError(f"--target {target} is not among the budgets {list(budgets)}.")
    return target


def _trials(given: Mapping[str, int], cells: Sequence[Cell], resolver: Resolver) -> dict[str, int]:
    """Trials by the names of tables: an arm in another spelling would leave uneven tuning unsaid.

    Arms that this study does not have may be among them: a suite file may be cut down.
    """
    trials: dict[str, int] = {}
    for name, count in given.items():
        arm = _called(name, cells, resolver)
        if trials.setdefault(arm, count) != count:
            raise UsageError(f"trials names '{arm}' twice, with {trials[arm]} and {count}.")
    return trials


def _called(name: str, cells: Sequence[Cell], resolver: Resolver) -> str:
    """What tables call an arm in any spelling."""
    first = cells[0].config
    if name in {c.config.arm for c in cells}:
        return name
    return resolver.resolve(parse_arm(name), first.pretrain.epochs, first.seed).arm


def _baseline(name: str, cells: Sequence[Cell], resolver: Resolver) -> str:
    """The arm that ``--baseline`` names in any spelling, as tables call it; empty for none."""
    arms = list(dict.fromkeys(c.config.arm for c in cells))
    if not name:
        return name
    called = ""
    with contextlib.suppress(UsageError):
        called = _called(name, cells, resolver)
    if called not in arms:
        raise unknown("baseline", name, arms, "It must be an arm of this study: see --methods.")
    return called


def _check_init(init: str, arms: Sequence[Arm], budgets: Sequence[int]) -> None:
    """A given checkpoint is one encoder: of one bare method, at the epochs it was trained for."""
    if init and (len(arms) != 1 or arms[0].plugins or len(budgets) != 1):
        raise UsageError(
            "--init evaluates one checkpoint: give one method without plug-ins, and as --epochs "
            "the epochs it was pre-trained for."
        )


def _check_data(study: Study, root: str) -> None:
    name = study.cells[0].config.data.name
    if registry.dataset(name).needs_root and not root:
        raise UsageError(
            f"preset '{study.preset}' needs the data set '{name}': add --data {name}:DIR."
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


def _without_budget(config: RunConfig) -> str:
    plain = plain_config(config)
    plain["pretrain"].pop("epochs")
    plain.pop("seed")
    return json.dumps(plain, sort_keys=True)
