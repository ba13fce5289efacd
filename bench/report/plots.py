"""Which plots a study has, as data for bench.report.draw."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.report import words
from bench.report.draw import Plot, Series
from bench.report.sections import Section
from bench.report.tables import caption
from bench.stats.analysis import endpoint_label, rows_of
from bench.stats.means import t_quantile

Lines = list[dict[str, Any]]
LogReader = Callable[[str], Lines]
"""From a pre-training id to the lines of its metrics."""


def section_plots(section: Section, logs: LogReader | None) -> list[Plot]:
    """All plots of a section; loss and heterogeneity only with the run folders at hand."""
    frame = section.accuracy
    plots = [forest(section, primary=True), forest(section, primary=False)]
    for base_arm in sorted(set(frame["base_arm"])):
        family = frame[frame["base_arm"] == base_arm]
        plots += [_accuracy(section, family, name) for name in section.analysis.endpoints]
        plots.append(_accuracy_by_cost(section, family))
        if logs is not None:
            plots += _from_logs(section, str(base_arm), logs)
    prefix = "_".join((*section.key[:2], section.key[2][:6]))
    return [_finished(plot, prefix, caption(section)) for plot in plots if _shows(plot)]


def _shows(plot: Plot) -> bool:
    """Whether there is anything in it: curves of failed runs alone have no points."""
    return any(plot.kind == "forest" or series.x for series in plot.series)


def _finished(plot: Plot, prefix: str, note: str) -> Plot:
    name = re.sub(r"[^\w.]+", "-", f"{prefix}_{plot.name}")
    return replace(plot, name=name, caption=note)


def _arms(frame: pd.DataFrame) -> list[str]:
    """The baseline first, then its variants."""
    names = set(zip(frame["arm"] != frame["base_arm"], frame["arm"], strict=True))
    return [arm for _, arm in sorted(names)]


def _accuracy(section: Section, family: pd.DataFrame, endpoint: str) -> Plot:
    frame = family[family["endpoint"] == endpoint]
    name = endpoint_label(endpoint)
    series = [_band(frame[frame["arm"] == arm], arm, section, "epochs") for arm in _arms(frame)]
    levels = {
        f"target: {row['base_arm']} at {row['target_epochs']}": row["target_top1"]
        for row in section.rows["targets"]
        if row["endpoint"] == endpoint and row["main_target"] and row["state"] != "empty"
        if row["arm"] in set(frame["arm"])
    }
    return Plot(
        name=f"accuracy_{_base(family)}_{endpoint}",
        title=f"{_base(family)}: {name} (%), mean and 95 % interval over seeds",
        x_label="pre-training epochs (each budget a run of its own)",
        y_label=f"{name} (%)",
        lead=endpoint == section.analysis.endpoint,
        series=tuple(series),
        log_x=True,
        ticks=tuple(sorted({float(epochs) for epochs in frame["epochs"]})),
        targets=tuple(sorted(levels.items())),
    )


def _base(family: pd.DataFrame) -> str:
    return str(family["base_arm"].iloc[0])


def _band(frame: pd.DataFrame, arm: str, section: Section, x: str) -> Series:
    """Mean curve with its t interval; points without a finite interval carry none."""
    frame = frame.dropna(subset=["mean", x]).sort_values(x)
    half = []
    for row in rows_of(frame):
        quantile = t_quantile(row["n_ok"], section.analysis.alpha)
        half.append(quantile * row["sd"] / math.sqrt(row["n_ok"]) if row["n_ok"] > 1 else 0.0)
    means = frame["mean"].to_list()
    return Series(
        label=f"{arm} (n {words.counts(frame)})",
        arm=arm,
        x=tuple(float(v) for v in frame[x]),
        y=tuple(means),
        low=tuple(m - h for m, h in zip(means, half, strict=True)),
        high=tuple(m + h for m, h in zip(means, half, strict=True)),
    )


UNDEFINED = ("empty", "flat")
"""States of a comparison without a ratio."""


def forest(section: Section, primary: bool) -> Plot:
    """The primary endpoint at the main target, or all other comparisons; undefined ones greyed.

    Where an arm cannot be measured at that target, its other one stands beside it.
    """
    rows = section.rows["targets"]
    lost = {r["arm"] for r in rows if r["primary"] and r["state"] in UNDEFINED}
    chosen = section.analysis.endpoint
    lead = [r["primary"] or (r["endpoint"] == chosen and r["arm"] in lost) for r in rows]
    order = {name: i for i, name in enumerate(section.analysis.endpoints)}
    rows = sorted(
        (r for r, first in zip(rows, lead, strict=True) if primary == first),
        key=lambda r: (order[r["endpoint"]], r["arm"], not r["main_target"], r["target_epochs"]),
    )
    claimed = any(row.claims_half for row in section.plugins)
    half = "half the epochs" + (" (the paper's claim)" if claimed else "")
    return Plot(
        name="rho" if primary else "rho_secondary",
        title="ρ: the baseline's epochs over the method's, to the same accuracy",
        x_label="",
        kind="forest",
        lead=primary,
        series=tuple(_forest_row(row, primary) for row in rows),
        marks=((1.0, "equal", "mark"), (2.0, half, "claim")),
        ends=("more epochs", "fewer epochs"),
    )


def _forest_row(row: words.Row, strong: bool) -> Series:
    undefined = row["state"] in UNDEFINED
    return Series(
        label=f"{row['arm']}, at {row['target_epochs']}",
        arm=row["arm"],
        group=f"{endpoint_label(row['endpoint'])}{' (primary)' if strong else ''}",
        x=() if undefined or math.isnan(row["rho"]) else (row["rho"],),
        low=() if undefined else (row["rho_low"],),
        high=() if undefined else (row["rho_high"],),
        dots=() if undefined else tuple(float(v) for v in row["rho_pairs"].split()),
        note=words.factor(row),
        strong=strong,
        faint=undefined,
    )


def _accuracy_by_cost(section: Section, family: pd.DataFrame) -> Plot:
    endpoint = section.analysis.endpoint
    frame = family[family["endpoint"] == endpoint]
    hours = section.cells.groupby(["arm", "epochs"])["device_hours"].mean()
    frame = frame.merge(hours.reset_index(), on=["arm", "epochs"])
    frame = frame[frame["device_hours"] > 0]
    series = [_band(frame[frame["arm"] == a], a, section, "device_hours") for a in _arms(frame)]
    ticks = sorted(frame.loc[frame["arm"] == _base(family), "device_hours"])
    return Plot(
        name=f"cost_{_base(family)}_{endpoint}",
        title=f"{_base(family)}: accuracy against the cost of pre-training",
        x_label="device-hours of pre-training, mean of one run",
        y_label=f"{endpoint_label(endpoint)} (%)",
        series=tuple(series),
        log_x=True,
        ticks=tuple(float(f"{tick:.2g}") for tick in ticks),
    )


# --- from the logs ----------------------------------------------------------------------------


def _from_logs(section: Section, base_arm: str, logs: LogReader) -> list[Plot]:
    """Plots of one pre-training run an arm: the main target's budget, the lowest seed."""
    runs = section.runs
    runs = runs[runs["ok"] & (runs["base_arm"] == base_arm)]
    wanted = section.analysis.targets(int(epochs) for epochs in runs["epochs"])
    runs = runs[runs["epochs"].isin(wanted[:1])]
    chosen = runs.sort_values(["seed", "repeat"]).drop_duplicates("arm").set_index("arm")
    found: dict[tuple[str, str], Lines] = {}
    for arm in _arms(runs):
        run = chosen.loc[arm]
        lines = logs(str(run["pretrain_id"]))
        label = f"{arm} ({run['epochs']} epochs, seed {run['seed']})"
        found[arm, label] = [line for line in lines if line.get("stage") == "pretrain"]
    return [_loss(base_arm, found), _heterogeneity(base_arm, found)]


def _loss(base_arm: str, found: dict[tuple[str, str], Lines]) -> Plot:
    series = []
    for (arm, label), lines in found.items():
        points = [(float(x["epoch"]), float(x["loss"])) for x in lines if "loss" in x]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            epochs, losses = zip(*points, strict=True)
            series.append(Series(label=label, arm=arm, x=epochs, y=losses))
    return Plot(
        name=f"loss_{base_arm}",
        title=f"{base_arm}: pre-training loss of one seed (arms may differ in their loss terms)",
        x_label="epoch",
        y_label="loss",
        series=tuple(series),
        markers=False,
    )


def _heterogeneity(base_arm: str, found: dict[tuple[str, str], Lines]) -> Plot:
    series = []
    for (arm, label), lines in found.items():
        measured = [x["heterogeneity"] for x in lines if x.get("heterogeneity")]
        if measured and all(math.isfinite(value) for value in measured[-1]):
            depth = tuple(float(i + 1) for i in range(len(measured[-1])))
            series.append(Series(label=label, arm=arm, x=depth, y=tuple(measured[-1])))
    return Plot(
        name=f"heterogeneity_{base_arm}",
        title=f"{base_arm}: heterogeneity of masked tokens by depth, last measurement",
        x_label="layer that carries mask tokens",
        y_label="H (1: uniform over visible tokens)",
        series=tuple(series),
        ticks=max((s.x for s in series), key=len, default=()),
    )
