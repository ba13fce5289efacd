"""A study from wish to tables in four steps, for commands and notebooks alike.

    from bench.library import Wish, compute, plan, read, report

request = plan(Wish(methods="mae,mae+null", epochs="100,200"), out="results")
compute(request)
findings = read("results", request.name)
report(findings, "tables")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.errors import NothingMeasuredError, StoreError, UsageError
from bench.launch.base import Launcher, Observer, Order, Progress, survey
from bench.launch.slurm.site import load_site
from bench.machine.compiler import check_compiler
from bench.machine.cores import usable_cores
from bench.plan.config import Resources, RunConfig
from bench.plan.cuts import check_runs
from bench.plan.resolve import run_from_plain
from bench.plan.study import Study, Task, plain_config
from bench.plan.wish import ALL, Means, Planned, Wish, borrows, leaves_open, plan_wish
from bench.store import studies
from bench.store.collect import collect
from bench.store.mend import mend
from bench.store.record import blank
from bench.store.states import DONE, PENDING
from bench.store.store import Store
from bench.store.studies import StudyFolder
from bench.train.trackers import checked
from bench.work import sizing, vetted
from bench.work.place import Place
from bench.work.sizing import Sizing

if TYPE_CHECKING:  # planning a study needs none of what reads its tables
    from bench.report.sections import Findings

__all__ = ["Means", "Request", "Wish", "compute", "plan", "read", "report"]

MOST_JOBS = 4096

SMALL_PX = 64
"""Below this image size a run computes fastest on one thread, with others beside it."""


@dataclass(frozen=True)
class Request:
    """A planned study, where it is stored, and how it is to be computed.

    ``sizing`` is the recipe for images of one's own, where none was chosen.
    """

    planned: Planned
    store: Store
    means: Means
    resources: Resources
    sizing: Sizing | None = None

    @property
    def study(self) -> Study:
        """The cells and how they will be compared."""
        return self.planned.study

    @property
    def name(self) -> str:
        """The name of the study's folder."""
        return self.planned.name

    @property
    def folder(self) -> StudyFolder:
        """Folder of the study's plan and tables."""
        return studies.folder_of(self.store, self.name)

    def survey(self) -> list[Progress]:
        """The state of each run; an earlier failure is pending when it is to be tried again."""
        return survey(self.store, self.study.tasks(), self.means.retry)


def plan(wish: Wish, out: str | Path = "results", means: Means = Means()) -> Request:  # noqa: B008
    """Resolves and checks everything; nothing is written or computed.

    Raises:
        UsageError: for anything wrong with the wish or its means.
    """
    request = outline(wish, out, means)
    request.planned.warnings.extend(vet(request, request.study.tasks()))
    return request


def outline(wish: Wish, out: str | Path, means: Means) -> Request:
    """A request before models and images were looked at.

    Raises:
        UsageError: for anything wrong with the words of the wish or of its means.
    """
    check_means(means)
    store, own, others = Store(Path(os.path.expanduser(out))), leaves_open(wish), borrows(wish)
    found = sizing.find(*own, store, _has_gpu(means), sizing.chosen(wish)) if own else None
    facts = sizing.facts_of(*others, sizing.chosen(wish)) if others and not own else None
    planned = plan_wish(wish, _content(wish.init), found.layer if found else None, facts)
    store.check_place()
    return Request(planned, store, means, _resources(planned, means), found)


def vet(request: Request, tasks: Sequence[Task]) -> list[str]:
    """Vets the tasks that are not done, and that all of a study saw the same images.

    Torch is imported only where there is something to vet.

    Returns:
        What a reader should know of the images.

    Raises:
        UsageError: naming what would be found too late.
    """
    missing = [t.config for t in tasks if not request.store.run(t.run_id).is_done()]
    places = launcher(request).places(len(missing))
    if request.resources.compile and missing and places.here:
        check_compiler(request.resources.device)
    if request.resources.data_root:
        from bench.work.vet import check_same_images

        config, ids = request.study.cells[0].config, [t.run_id for t in tasks]
        check_same_images(config, request.resources, request.store, ids)
    place = Place(places.here, places.memory_gb, places.processes, places.unit == "GPU")
    return vetted.vet(missing, request.resources, place)


def mend_runs(request: Request, tasks: Sequence[Task]) -> list[str]:
    """Sets damaged files of the tasks' folders aside and removes what kills left; notes on it.

    Raises:
        StoreError: if a folder can neither be used nor mended.
    """
    store, found = request.store, survey(request.store, tasks, request.means.retry)
    wanted = {p.task.parent for p in found if p.state == PENDING}
    ids = [p.task.run_id for p in found]
    return [note for name in ids for note in mend(store.run(name), name in wanted)]


def freeze(request: Request, arguments: Sequence[str] = ()) -> list[str]:
    """Mends the study's runs and writes its plan into its folder, before there are results.

    Returns:
        Which settings act on no arm, what was mended, and what of the plan does not count, because
        the study was planned otherwise before.

    Raises:
        UsageError: if the folder cannot be written, or the study has cells of another recipe.
    """
    request.store.check_writable()
    check_recipe(request)
    if request.sizing:
        request.sizing.keep()
    mended = mend_runs(request, request.study.tasks())
    settings = {c.config.arm: plain_config(c.config) for c in request.study.cells}
    if arguments:
        request.folder.note_arguments(arguments)
    unlike = request.folder.freeze(request.planned.to_plain(), settings)
    return [*request.planned.idle, *mended, *unlike]


def check_recipe(request: Request) -> None:
    """Refuses cells that the study has already with other settings: neither run would count.

    Raises:
        UsageError: naming one of the runs.
    """
    kept = set((request.folder.plan() or {}).get("ids", []))
    added = {c.run_id: _cell(c.config) for c in request.study.cells if c.run_id not in kept}
    stems = {run_id.rpartition("-")[0] for run_id in added}
    alike = sorted(run_id for run_id in kept if run_id.rpartition("-")[0] in stems)
    for run_id in alike:
        if _stored_cell(request.store, run_id) in added.values():
            raise UsageError(
                f"study '{request.folder.name}' has {run_id} with other settings, those in "
                f"'{request.folder.path / 'resolved.yaml'}'. Give another --name."
            )


def _stored_cell(store: Store, run_id: str) -> tuple[object, ...] | None:
    """The cell that a run is of; None where its folder does not tell."""
    with contextlib.suppress(StoreError, UsageError):
        kept = store.run(run_id).config()
        return None if kept is None else _cell(run_from_plain(kept["config"]))
    return None


def _cell(config: RunConfig) -> tuple[object, ...]:
    """What two runs of one study may not share; repeated evaluations are cells of their own."""
    found = blank(config, "", "")
    facts = (found.data, found.model, found.recipe, found.arm, found.epochs, found.seed)
    return (*facts, found.repeat)


def compute(
    request: Request,
    observe: Observer = lambda runs: None,
    say: Callable[[str], None] = lambda text: None,
) -> Sequence[Progress]:
    """Computes what is missing of a study; how each run ended.

    Raises:
        UsageError: if the results folder cannot be written.
        DetachedError: if the runs were left to a scheduler.
    """
    for note in freeze(request):
        say(note)
    return compute_tasks(request, request.study.tasks(), observe, say)


def compute_tasks(
    request: Request,
    tasks: Sequence[Task],
    observe: Observer,
    say: Callable[[str], None] = lambda text: None,
) -> Sequence[Progress]:
    """Computes what is missing of the tasks, each registered in its folder first."""
    for task in tasks:
        request.store.register(task)
    return launcher(request, say).launch(tasks, observe)


def read(out: str | Path | Store, study: str = "", everything: bool = False) -> Findings:
    """What a study's records say; without a name that of the newest one.

    ``everything`` takes every run of the folder, planned or not.

    Raises:
        UsageError: if there is no study of that name.
        NothingMeasuredError: if no cell has finished.
    """
    store = out if isinstance(out, Store) else Store(Path(os.path.expanduser(out)))
    folder = studies.folder_of(store, ALL) if everything else studies.find(store, study)
    return findings_of(store, folder)


def findings_of(store: Store, folder: StudyFolder) -> Findings:
    """What the records of a study folder say.

    Raises:
        NothingMeasuredError: if no cell has finished.
    """
    found = folder.plan()
    if found is None and folder.name != ALL:
        raise NothingMeasuredError(f"'{folder.name}' has not been run: it has no plan, no table.")
    records = collect(store, None if found is None else found["ids"])
    if not any(r.status == DONE for r in records):
        raise NothingMeasuredError(f"no cell of '{folder.name}' has finished: there is no table.")
    from bench.report import write

    return write.prepare(records, found, store)


def report(
    findings: Findings,
    to: str | Path,
    formats: Iterable[str] = ("md", "csv", "json"),
    store: Store | None = None,
) -> list[Path]:
    """Writes tables (and plots, of runs in ``store``) into a folder; the files."""
    from bench.report import write

    return write.write_report(findings, Path(to), formats, store)


def launcher(request: Request, say: Callable[[str], None] = lambda text: None) -> Launcher:
    """The launcher asked for."""
    means, configs = request.means, [c.config for c in request.study.cells]
    share = partial(check_runs, configs, request.resources.micro_batch)
    share(1)
    order = Order(
        store=request.store,
        resources=request.resources,
        study=request.folder.path,
        smallest_batch=min(c.pretrain.batch_size // c.masks for c in configs),
        jobs=means.jobs,
        threads=means.threads,
        workers=means.workers,
        retry=means.retry,
        detach=means.detach,
        site=means.site,
        settings=means.settings,
        say=say,
        share=share,
    )
    made: Launcher = registry.LAUNCHERS.load(means.launcher)(order)
    return made


def check_means(means: Means) -> None:
    """Refuses what the launcher chosen would leave unread.

    Raises:
        UsageError: naming the flag.
    """
    row = registry.LAUNCHERS.row(means.launcher)
    given = [name for name, value in means.settings.items() if value is not None]
    given += [name for name in ("site", "detach") if getattr(means, name)]
    if row.ngpus and given == ["gpus_per_node"]:
        given = []
    if given and not row.site:
        flag = {"gpus_per_node": "ngpus", "timeout_min": "timeout", "poll_s": "poll"}
        name = flag.get(given[0], given[0]).replace("_", "-")
        readers = "slurm or local" if name == "ngpus" else "slurm alone"
        raise UsageError(f"--{name} is read with --launcher {readers}. Add it, or leave it.")
    if means.jobs > MOST_JOBS:
        raise UsageError(
            f"--jobs {means.jobs}: at most {MOST_JOBS} runs are computed side by side."
        )
    if means.jobs and not row.jobs:
        raise UsageError(
            f"--jobs is for runs on this machine, not for --launcher {means.launcher}."
        )


def _has_gpu(means: Means) -> bool:
    """Whether runs will be computed on GPUs; on a cluster, whether jobs ask for any."""
    if means.device == "auto" and registry.LAUNCHERS.row(means.launcher).site:
        return load_site(means.site, means.settings).gpus_per_node > 0
    from bench.machine.device import pick_device

    return pick_device(means.device).type == "cuda"


def _content(init: str) -> str:
    """The content hash by which a checkpoint counts, or nothing."""
    if not init:
        return ""
    from bench.work.released import fingerprint

    return fingerprint(Path(init))


def _resources(planned: Planned, means: Means) -> Resources:
    """Threads and data workers as they suit this machine, unless they were asked for."""
    cores = usable_cores()
    small = planned.study.cells[0].config.model.image_size < SMALL_PX
    workers = 0 if small else max(1, cores - 1)
    return Resources(
        device=means.device,
        threads=means.threads or (1 if small else cores),
        workers=workers if means.workers is None else means.workers,
        micro_batch=means.micro_batch,
        data_root=os.path.abspath(planned.data_root) if planned.data_root else "",
        init_path=str(Path(planned.init).resolve()) if planned.init else "",
        checkpoint_every_s=means.checkpoint_every_s,
        strict_images=means.strict_images,
        trackers=checked(means.trackers),
        compile=means.compile,
    )
