"""Results of runs to tidy frames: pure, no files, independent of the order of the runs.

Every frame is long and carries the columns ``data``, ``model`` and ``recipe``; rows that differ in
one of them never meet in a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.errors import NON_FINITE
from bench.stats.analysis import (
    ARM,
    CELL,
    COSTS,
    PER_EPOCH,
    RATES,
    SECTION,
    Analysis,
    endpoints_of,
)


def tidy(rows: Iterable[Mapping[str, Any]], analysis: Analysis) -> pd.DataFrame:
    """One line a run, sorted; a run with a score that is not finite counts as failed.

    ``diverged`` tells the failures that are a result (the loss or a score is no number) from those
    that say nothing of the arm: memory, time, machine, data, an error in the program.
    ``ambiguous`` marks runs of one cell and repeat under several ids, of which the plan names none
    or several: none of them is used, since choosing one would be choosing a result.
    """
    unique = {row["run_id"]: _flat(row) for row in rows}
    frame = pd.DataFrame([unique[k] for k in sorted(unique)])
    if frame.empty:
        return frame
    if analysis.baseline:
        frame["base_arm"] = analysis.baseline
    expected = [*analysis.endpoints, *COSTS, *RATES, "pretrain_loss"]
    frame[[name for name in expected if name not in frame]] = math.nan
    names = list(dict.fromkeys([*expected, *endpoints_of(frame)]))
    frame[names] = frame[names].astype(float)
    frame["recipe"] = frame["recipe"].replace("", analysis.recipe)  # failed before it was known
    frame["ok"] = (frame["status"] == "done") & ~frame["broken"]
    frame.loc[frame["broken"] & (frame["status"] == "done"), "failure"] = "nan"
    frame["diverged"] = ~frame["ok"] & frame["failure"].isin([NON_FINITE, "nan"])
    frame.loc[~frame["ok"], endpoints_of(frame)] = math.nan
    key = [*CELL, "repeat"]
    frame = frame.sort_values([*key, "run_id"])
    frame["in_plan"] = frame["run_id"].isin(analysis.ids)
    replaced = ~frame["in_plan"] & frame.groupby(key)["in_plan"].transform("any")
    frame = frame[~replaced]
    return frame.assign(ambiguous=frame.duplicated(key, keep=False)).reset_index(drop=True)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record's values with a column for each endpoint and for the seconds of each task."""
    scores, seconds = row["scores"], row["seconds"]
    rest = {k: v for k, v in row.items() if k not in ("scores", "seconds")}
    broken = not all(map(math.isfinite, scores.values()))
    return {**rest, **scores, **{f"{k}_s": v for k, v in seconds.items()}, "broken": broken}


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """One line a pre-training seed: fine-tune repeats are averaged before anything else.

    A seed one of whose repeats failed counts as failed (``ok`` False) and has no score.
    """
    used = runs[~runs["ambiguous"]]
    numbers = [*endpoints_of(used), *COSTS, *RATES]
    grouped = used.groupby(CELL)
    frame = grouped[numbers].mean()
    frame["ok"] = grouped["ok"].all()
    frame["diverged"] = grouped["diverged"].any()
    frame["repeats"] = grouped.size()
    frame.loc[~frame["ok"], endpoints_of(frame)] = math.nan
    return frame.reset_index()


def long(cell_frame: pd.DataFrame) -> pd.DataFrame:
    """One line a cell and endpoint, without endpoints that a finished cell did not measure."""
    keep = [*CELL, "ok", "diverged"]
    frame = cell_frame.melt(keep, endpoints_of(cell_frame), var_name="endpoint", value_name="score")
    measured = frame.groupby([*SECTION, "endpoint"])["score"].transform("count") > 0
    return frame[(frame["score"].notna() | ~frame["ok"]) & measured]


def accuracy(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample sd over the seeds that finished, ``n_ok`` of ``n``."""
    grouped = scores.groupby([*ARM, "endpoint", "epochs"])
    frame = grouped["score"].agg(["mean", "std", "count"])
    frame.columns = pd.Index(["mean", "sd", "n_ok"])
    frame["n"] = grouped.size()
    return frame.reset_index()


def costs(cell_frame: pd.DataFrame) -> pd.DataFrame:
    """Cost of one pre-training epoch (``<cost>_per_epoch``), the median over an arm's cells."""
    frame = cell_frame[cell_frame["ok"]].copy()
    for name in COSTS:
        frame[PER_EPOCH[name]] = frame[name].where(frame[name] > 0) / frame["epochs"]
    return frame.groupby(ARM)[[*PER_EPOCH.values(), *RATES]].median().reset_index()
