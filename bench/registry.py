"""What can be named: one literal table a kind, read without importing anything.

Outside packages add rows through the entry-point groups ``mto_bench.methods``, ``.plugins``,
``.datasets`` and so on, one a kind (:data:`KINDS`). The entry point names what a row's ``target``
names; a method or plug-in carries its configuration class as the attribute ``Config``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.errors import UsageError, unknown
from bench.rows import (
    ConfiguredRow,
    DatasetRow,
    LauncherRow,
    Row,
    StatisticRow,
    TaskRow,
    TrackerRow,
)

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Kind(Generic[R]):
    """Everything of one kind: the rows here and those of outside packages.

    ``outside`` makes a row of an entry point's name and of what it names.
    """

    name: str
    one: str
    rows: Mapping[str, R]
    outside: Callable[[str, str], R]

    def points(self) -> dict[str, EntryPoint]:
        """Entry points of outside packages, by name; rows of this file come first."""
        found = _points(f"mto_bench.{self.name}")
        return {name: point for name, point in found.items() if name not in self.rows}

    def names(self) -> list[str]:
        """Known names, outside packages included."""
        return sorted(self.ordered())

    def ordered(self) -> list[str]:
        """Known names: those of the table in its order, then those of outside packages."""
        return [*self.rows, *sorted(self.points())]

    def row(self, name: str) -> R:
        """The row of a name.

        Raises:
            UsageError: for an unknown name.
        """
        if name in self.rows:
            return self.rows[name]
        if name not in self.points():
            raise unknown(
                self.one, name, self.names(), f"See 'python -m bench.run ls {self.name}'."
            )
        return self.outside(name, self.points()[name].value)

    def load(self, name: str) -> Any:
        """The implementation of a name; may import torch."""
        return load(self.row(name).target)

    def packages(self) -> set[str]:
        """Top-level packages that the implementations lie in."""
        targets = [row.target for row in self.rows.values()]
        targets += [point.value for point in self.points().values()]
        return {target.partition(":")[0].partition(".")[0] for target in targets}


C = TypeVar("C", bound=ConfiguredRow)


class ConfiguredKind(Kind[C]):
    """Methods, plug-ins and tasks: an implementation and its configuration class."""

    def config(self, name: str) -> type:
        """The configuration dataclass of a name.

        Raises:
            UsageError: for an unknown name, or an outside object without the attribute ``Config``.
        """
        row = self.row(name)
        try:
            found: type = load(row.config)
        except AttributeError as error:
            raise UsageError(
                f"{self.one} '{name}' ({row.target}) has no attribute 'Config', a frozen dataclass."
            ) from error
        return found


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def load(target: str) -> Any:
    """The object named ``module:attribute``, or ``module:attribute.attribute``."""
    module, _, path = target.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))


def dataset(name: str) -> DatasetRow:
    """The row of a data set; for a name with a slash its own, or that of its prefix.

    Raises:
        UsageError: for an unknown name, or a prefix that timm would take for a folder's name.
    """
    prefix, slash, _ = name.partition("/")
    prefixes = [n for n in DATASETS.names() if n.endswith("/")]
    if slash and prefix + slash not in prefixes:
        raise unknown("prefix of a data set", prefix + slash, prefixes)
    own = DATASETS.rows.get(name.lower()) if slash else None
    return own or DATASETS.row(prefix + slash if slash else name)


def sizes(name: str) -> tuple[str, ...]:
    """Settings by which a data set may be made smaller; none of one that is not known here."""
    row = DATASETS.rows.get(name)
    return row.sizes if row else ()


def told(plugins: Iterable[str]) -> list[ConfiguredRow]:
    """Rows of these plug-ins, each once, as far as they are known here: what a report asks."""
    return [PLUGINS.rows[name] for name in sorted(set(plugins)) if name in PLUGINS.rows]


def endpoint(task: str) -> str:
    """The endpoint that an evaluation task measures, as plans, records and reports call it."""
    return f"{task}_top1"


def label(task: str) -> str:
    """What tables call an evaluation task; its name where it says nothing, or is not installed."""
    if task not in TASKS.ordered():
        return task
    row = TASKS.row(task)
    return row.label or str(getattr(load(row.target), "label", task))


def standing_tasks() -> list[str]:
    """The evaluation tasks of a study that names none."""
    return [name for name, row in TASKS.rows.items() if row.standing]


def recipe_of(method: str) -> str:
    """The method whose recipe this one states to take (``Config.recipe_of``); else nothing.

    Raises:
        UsageError: if it names no known method.
    """
    named = str(getattr(METHODS.config(method), "recipe_of", ""))
    if named:
        METHODS.row(named)
    return named


def null_plugin() -> str:
    """The name of the plug-in whose arm shows the noise floor."""
    return next(name for name, row in PLUGINS.rows.items() if row.null)


def folder_of(target: str) -> Path | None:
    """The folder of the module that a row names; None if it cannot be found."""
    try:
        spec = find_spec(target.partition(":")[0])
    except ModuleNotFoundError:
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def packages() -> list[str]:
    """Top-level packages whose code can move a number."""
    return sorted({"bench"}.union(*(kind.packages() for kind in KINDS.values())))


def _configured(name: str, target: str) -> ConfiguredRow:
    return ConfiguredRow(target=target, config=f"{target}.Config")


def _task(name: str, target: str) -> TaskRow:
    return TaskRow(target=target, config=f"{target}.Config")


def _dataset(name: str, target: str) -> DatasetRow:
    return DatasetRow(target=target, preset="imagenet")


def _statistic(name: str, target: str) -> StatisticRow:
    return StatisticRow(target=target, column=name, head=name)


def _launcher(name: str, target: str) -> LauncherRow:
    return LauncherRow(target=target)


def _tracker(name: str, target: str) -> TrackerRow:
    return TrackerRow(target=target)


def _plain(name: str, target: str) -> Row:
    return Row(target=target)


METHODS = ConfiguredKind(
    "methods",
    "method",
    {
        "mae": ConfiguredRow(
            target="baselines.mae.model:MAE", config="baselines.mae.config:MAEConfig"
        ),
        "simmim": ConfiguredRow(
            target="baselines.simmim.model:SimMIM", config="baselines.simmim.config:SimMIMConfig"
        ),
        "data2vec": ConfiguredRow(
            target="baselines.data2vec.model:Data2Vec",
            config="baselines.data2vec.config:Data2VecConfig",
        ),
        "bootmae": ConfiguredRow(
            target="baselines.bootmae.model:BootMAE",
            config="baselines.bootmae.config:BootMAEConfig",
        ),
        "conmim": ConfiguredRow(
            target="baselines.conmim.model:ConMIM", config="baselines.conmim.config:ConMIMConfig"
        ),
        "crossmae": ConfiguredRow(
            target="baselines.crossmae.model:CrossMAE",
            config="baselines.crossmae.config:CrossMAEConfig",
        ),
    },
    _configured,
)

PLUGINS = ConfiguredKind(
    "plugins",
    "plugin",
    {
        "mto": ConfiguredRow(
            target="mto.plugin:with_mto",
            config="mto.config:MTOConfig",
            note="MTO here is a reconstruction from summaries of the paper (arXiv 2404.08330); "
            "its equations were not available.",
            short="MTO is a reconstruction",
            claims_half=True,
        ),
        "null": ConfiguredRow(
            target="baselines.null:with_null", config="baselines.null:NullConfig", null=True
        ),
        "disjoint": ConfiguredRow(
            target="baselines.disjoint:with_disjoint",
            config="baselines.disjoint:DisjointConfig",
            note="+disjoint counts an image under n masks n times: its epochs and images are "
            "effective ones. Order and masks cannot be its baseline's, so nothing is claimed.",
            short="epochs of +disjoint are effective",
        ),
    },
    _configured,
)

DATASETS = Kind(
    "datasets",
    "data set",
    {
        "digits": DatasetRow(
            target="bench.data.sets.digits:digits",
            preset="digits",
            needs_root=False,
            sizes=("train_images",),
        ),
        "procedural": DatasetRow(
            target="bench.data.sets.procedural:procedural",
            preset="procedural",
            needs_root=False,
            sizes=("train_images", "test_images", "classes"),
        ),
        "fashion-mnist": DatasetRow(
            target="bench.data.sets.fashion_mnist:fashion_mnist",
            preset="fashion-mnist",
            needs_root=False,
            sizes=("train_images", "test_images"),
        ),
        "cifar10": DatasetRow(target="bench.data.sets.cifar:cifar10", preset="cifar"),
        "cifar100": DatasetRow(target="bench.data.sets.cifar:cifar100", preset="cifar"),
        "imagenet": DatasetRow(target="bench.data.sets.folder:image_folder", preset="imagenet"),
        "folder": DatasetRow(
            target="bench.data.sets.folder:image_folder", preset="own", sizes=("holdout",)
        ),
        "npz": DatasetRow(
            target="bench.data.sets.npz:npz", preset="own", file=True, sizes=("holdout",)
        ),
        "tar": DatasetRow(target="bench.data.sets.tar:tar", preset="own", sizes=("holdout",)),
        "torch/": DatasetRow(target="bench.data.sets.timm:timm_factory", preset="own"),
        "torch/cifar10": DatasetRow(target="bench.data.sets.timm:timm_factory", preset="cifar"),
        "torch/cifar100": DatasetRow(target="bench.data.sets.timm:timm_factory", preset="cifar"),
        "hfds/": DatasetRow(target="bench.data.sets.hfds:hugging_face", preset="own"),
    },
    _dataset,
)

TASKS = ConfiguredKind(
    "evaluations",
    "evaluation task",
    {
        "finetune": TaskRow(
            target="bench.evaluate.finetune:finetune",
            config="bench.evaluate.finetune:FinetuneConfig",
            label="fine-tune",
            share=0.8,
            standing=True,
        ),
        "probe": TaskRow(
            target="bench.evaluate.probe:probe",
            config="bench.evaluate.probe:ProbeConfig",
            label="linear-probe",
            share=0.2,
            standing=True,
        ),
        "knn": TaskRow(
            target="bench.evaluate.knn:knn",
            config="bench.evaluate.knn:KnnConfig",
            label="k-NN",
            standing=True,
        ),
        "ridge_all": TaskRow(
            target="bench.evaluate.ridge_all:ridge_all",
            config="bench.evaluate.ridge_all:RidgeAllConfig",
            label="ridge, all labels",
        ),
        "knn_all": TaskRow(
            target="bench.evaluate.knn_all:knn_all",
            config="bench.evaluate.knn_all:KnnAllConfig",
            label="k-NN, all labels",
        ),
        "attentive": TaskRow(
            target="bench.evaluate.attentive:attentive",
            config="bench.evaluate.attentive:AttentiveConfig",
            label="attentive probe",
        ),
    },
    _task,
)
"""In the order of their parts in an id; the first is the primary endpoint."""

MEASURES = Kind("measures", "measure", {"layers": Row(target="mto.probe:LayerProbe")}, _plain)
"""What is measured of the layers of any method along its training, both arms alike."""

LAUNCHERS = Kind(
    "launchers",
    "launcher",
    {
        "local": LauncherRow(target="bench.launch.local:local", site=False, ngpus=True),
        "inline": LauncherRow(target="bench.launch.inline:inline", jobs=False, site=False),
        "slurm": LauncherRow(target="bench.launch.slurm.launcher:slurm", jobs=False),
    },
    _launcher,
)

TRACKERS = Kind(
    "trackers",
    "tracker",
    {
        "csv": TrackerRow(target="bench.train.sinks.csv:sink"),
        "tensorboard": TrackerRow(target="bench.train.sinks.tensorboard:sink", needs="tensorboard"),
        "wandb": TrackerRow(target="bench.train.sinks.wandb:sink", needs="wandb"),
        "mlflow": TrackerRow(target="bench.train.sinks.mlflow:sink", needs="mlflow"),
    },
    _tracker,
)

STATISTICS = Kind(
    "statistics",
    "statistic",
    {
        "rauc": StatisticRow(target="bench.stats.columns.rauc:rauc"),
        "pairs": StatisticRow(target="bench.stats.columns.pairs:pairs"),
        "sign-flip": StatisticRow(target="bench.stats.columns.sign_flip:sign_flip"),
        "half": StatisticRow(target="bench.stats.columns.half:half"),
    },
    _statistic,
)

_KINDS = (METHODS, PLUGINS, DATASETS, TASKS, MEASURES, LAUNCHERS, TRACKERS, STATISTICS)
KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in _KINDS}
