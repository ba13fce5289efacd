"""``mlflow``: a run of the experiment ``mto-bench``, at MLFLOW_TRACKING_URI if that is set.

Otherwise in files, ``mlruns`` beside the runs: ``mlflow ui --backend-store-uri results/mlruns``.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from bench.plan.identity import digest
from bench.train.numbers import flat, measured

EXPERIMENT = "mto-bench"
MOST_PARAMS, LONGEST = 100, 500
"""Settings in one call, and characters of one, that every store takes."""


class MlflowSink:
    """Metrics by stage and step; the settings as parameters; a resumed run goes on."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        root = folder.absolute().parents[1]
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (root / "mlruns").as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        with (root / ".mlflow.lock").open("a") as lock:  # runs that start together make it once
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.run_id = self._open(folder.name, digest(str(root)))
        settings = [Param(name, str(value)[:LONGEST]) for name, value in flat(config)]
        for start in range(0, len(settings), MOST_PARAMS):
            self.client.log_batch(self.run_id, params=settings[start : start + MOST_PARAMS])

    def _open(self, name: str, runs: str) -> str:
        """MLflow's id of this folder's run of the name, an earlier attempt's if there was one."""
        known = self.client.get_experiment_by_name(EXPERIMENT)
        place = known.experiment_id if known else self.client.create_experiment(EXPERIMENT)
        ours = f"tags.mlflow.runName = '{name}' and tags.folder = '{runs}'"
        found = self.client.search_runs([place], ours, max_results=1)
        tags = {"folder": runs}
        run = found[0] if found else self.client.create_run(place, tags=tags, run_name=name)
        return str(run.info.run_id)

    def log(self, values: Mapping[str, Any]) -> None:
        """Logs the numbers of one logged line at its step."""
        now, step = int(time.time() * 1000), int(values.get("step") or 0)
        metrics = [Metric(name, value, now, step) for name, value in measured(values).items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def close(self) -> None:
        """Ends the run, for now."""
        self.client.set_terminated(self.run_id)


def sink(folder: Path, config: Mapping[str, Any]) -> MlflowSink:
    """The tracker of one run."""
    return MlflowSink(folder, config)
