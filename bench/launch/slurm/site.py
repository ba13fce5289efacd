"""What a cluster wants said at every submission: read from a TOML file, over-ruled by flags."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from bench.api.rules import Amount, Count, Line, Name, Natural, Processes, Range, Ruled
from bench.errors import UsageError
from bench.plan.loading import load_section

Minutes = Annotated[int, Range(1, 10_000_000)]

OURS = frozenset(
    {"array", "chdir", "comment", "dependency", "error", "job-name", "kill-on-invalid-dep"}
    | {"nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "time", "partition"}
    | {"account", "qos", "constraint", "exclude", "open-mode", "output", "requeue", "signal"}
    | {"wrap", "wckey"}
)
"""Options of sbatch that the launcher or submitit set."""

PLACES = ("job_dir", "stage", "stage_from")
"""Settings that name folders or files."""

VARIABLE = "MTO_BENCH_SITE"
"""Names the site file when --site does not."""


@dataclass(frozen=True, kw_only=True)
class Site(Ruled, section="slurm"):
    """Settings of one cluster, as in ``slurm/site.example.toml``; empty means SLURM's default.

    ``job_dir`` receives scripts, pickles and logs of the jobs (default: ``jobs`` in --out); it
    and --out must be seen by the compute nodes. ``signal_delay_s`` before its time limit a job
    saves its state and queues again, at most ``max_requeues`` times; a job whose process was
    killed without a signal first queues again at most ``kill_retries`` times. ``stage`` is a folder
    on a node's own disk that receives the images before a run, from the ``--data`` folder or the
    archive ``stage_from``; variables are the job's. ``additional`` are further options of sbatch.
    """

    partition: Line = ""
    account: Line = ""
    qos: Line = ""
    constraint: Line = ""
    exclude: Line = ""
    comment: Line = ""
    nodes: Annotated[int, Range(1, 65_536)] = 1
    gpus_per_node: Processes = 0
    tasks_per_node: Processes = 0
    cpus_per_task: Processes = 0
    mem_gb: Amount = 0.0
    timeout_min: Minutes = 4320
    cell_timeout_min: Annotated[int, Range(0, 10_000_000)] = 0
    array_parallelism: Count = 64
    job_dir: Line = ""
    python: Line = ""
    setup: tuple[Line, ...] = ()
    srun_args: tuple[Line, ...] = ("--kill-on-bad-exit=1",)
    stage: Line = ""
    stage_from: Line = ""
    additional: tuple[tuple[Name, Line], ...] = ()
    signal_delay_s: Annotated[int, Range(1, 86_400)] = 120
    max_requeues: Natural = 200
    kill_retries: Natural = 2
    poll_s: Annotated[float, Range(0, 86_400, "high")] = 30.0

    @property
    def tasks(self) -> int:
        """Processes on each node: one a GPU unless said otherwise."""
        return self.tasks_per_node or max(1, self.gpus_per_node)


def load_site(path: str, flags: Mapping[str, Any]) -> Site:
    """The site file's ``[slurm]`` table (``path``, or the file the environment names) and flags.

    Raises:
        UsageError: if the file cannot be read or has an unknown setting.
    """
    values: dict[str, Any] = {}
    name = path or os.environ.get(VARIABLE, "")
    if name:
        try:
            table = tomllib.loads(Path(name).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the site file '{name}': {error}") from error
        if set(table) - {"slurm"}:
            other = ", ".join(sorted(set(table) - {"slurm"}))
            raise UsageError(f"site file '{name}': only the table [slurm] is known, not {other}.")
        values = dict(table.get("slurm", {}))
        values["additional"] = _options(values.get("additional", {}), name)
    values |= {k: v for k, v in flags.items() if v is not None}
    values |= {k: _place(values[k]) for k in PLACES if isinstance(values.get(k), str)}
    site: Site = load_section(Site, values, "slurm")
    if site.timeout_min * 60 <= site.signal_delay_s:
        raise UsageError(
            f"timeout of {site.timeout_min} min leaves nothing before the signal "
            f"{site.signal_delay_s} s ahead of it: raise --timeout or lower signal_delay_s."
        )
    if site.stage_from and not site.stage:
        raise UsageError("stage_from is read with stage = 'FOLDER ON THE NODE' alone: add it.")
    return site


def _place(path: str) -> str:
    """The folder or file meant, of the user who submits: a job starts in a folder of its own."""
    path = os.path.expanduser(path)
    return os.path.abspath(path) if path and not path.startswith("$") else path


def _options(table: Any, file: str) -> list[list[str]]:
    """The table ``[slurm.additional]`` as names and values; what the launcher sets is refused."""
    if not isinstance(table, dict):
        raise UsageError(f"site file '{file}': [slurm.additional] must be a table of options.")
    pairs = {str(k).replace("_", "-"): v for k, v in table.items()}
    for name, value in pairs.items():
        if name in OURS:
            raise UsageError(
                f"site file '{file}': slurm.additional.{name} is set by the launcher. "
                "A setting of [slurm] may do it: see slurm/site.example.toml."
            )
        if not isinstance(value, str | int | float):
            raise UsageError(f"site file '{file}': slurm.additional.{name} must be one value.")
    return [[k, "" if v is True else str(v)] for k, v in pairs.items() if v is not False]
