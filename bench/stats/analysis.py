"""Results of runs to tidy frames: pure, no files, independent of the order of the runs.

Every frame is long and carries the columns ``data``, ``model`` and ``recipe``; rows that differ in
one of them never meet in a comparison. Units are in results/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from bench.stats import saving as metrics
from bench.stats.saving import Array, Curve

ENDPOINTS = {
    "finetune_top1": "fine-tune top-1",
    "probe_top1": "linear-probe top-1",
    "knn_top1": "k-NN top-1",
}
COSTS = {
    "pretrain_s": "wall time",
    "device_hours": "device-hours",
    "flops": "FLOPs",
    "images_seen": "images seen",
}
PER_EPOCH = {name: f"{name}_per_epoch" for name in COSTS}
RATES = ("images_per_s", "peak_memory_mib", "data_wait_share", "finetune_s")
SECTION = ["data", "model", "recipe"]
ARM = [*SECTION, "base_arm", "arm"]
CELL = [*ARM, "epochs", "seed"]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What was fixed before results existed; the defaults where there is no plan.

    ``target_epochs`` None means the second largest budget of three or more, then the largest; with
    two budgets the largest first, since no epochs can be saved against the smallest.
    """

    target_epochs: int | None = None
    budgets: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()
    alpha: float = 0.05
    margin: float = 0.1
    endpoint: str = "finetune_top1"
    secondary: tuple[str, ...] = ("probe_top1", "knn_top1")
    ids: tuple[str, ...] = ()
    recipe: str = ""
    warnings: tuple[str, ...] = ()
    planned: bool = False

    @staticmethod
    def of(plan: Mapping[str, Any] | None) -> Analysis:
        """The analysis that plan.json fixes; keys that are not about the analysis are skipped."""
        if plan is None:
            return Analysis()
        known = {f.name for f in fields(Analysis)} - {"planned"}
        given = {k: v for k, v in plan.items() if k in known and v is not None}
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
        }
        return Analysis(**values, planned=True)

    @property
    def endpoints(self) -> list[str]:
        """The primary endpoint, then the secondary ones."""
        return [self.endpoint, *(e for e in self.secondary if e != self.endpoint)]

    def targets(self, budgets: Iterable[int]) -> list[int]:
        """Budgets whose baseline accuracy is a target, the primary one first.

        Args:
            budgets: those that were run; the plan's count before them.
        """
        known = sorted(set(self.budgets or budgets))
        main = known[-2:] if len(known) > 2 else known[::-1]
        if self.target_epochs is not None:
            main = [self.target_epochs]
        return main


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


# --- runs and cells ---------------------------------------------------------------------------


def tidy(rows: Iterable[Mapping[str, Any]], analysis: Analysis) -> pd.DataFrame:
    """One line a run, sorted; a run with a score that is not finite counts as failed.

    ``ambiguous`` marks runs of one cell and repeat under several ids, of which the plan names none
    or several: none of them is used, since choosing one would be choosing a result.
    """
    unique = {row["run_id"]: row | {"broken": _is_broken(row)} for row in map(dict, rows)}
    frame = pd.DataFrame([unique[k] for k in sorted(unique)])
    if frame.empty:
        return frame
    names = [*ENDPOINTS, *COSTS, *RATES, "pretrain_loss"]
    frame[names] = frame[names].astype(float)
    frame["recipe"] = frame["recipe"].replace("", analysis.recipe)  # failed before it was known
    frame["ok"] = (frame["status"] == "done") & ~frame["broken"]
    frame.loc[frame["broken"] & (frame["status"] == "done"), "failure"] = "nan"
    frame.loc[~frame["ok"], list(ENDPOINTS)] = math.nan
    key = [*CELL, "repeat"]
    frame = frame.sort_values([*key, "run_id"], ignore_index=True)
    frame["in_plan"] = frame["run_id"].isin(analysis.ids)
    replaced = ~frame["in_plan"] & frame.groupby(key)["in_plan"].transform("any")
    frame = frame[~replaced]
    return frame.assign(ambiguous=frame.duplicated(key, keep=False)).reset_index(drop=True)


def _is_broken(row: Mapping[str, Any]) -> bool:
    scores = (row.get(name) for name in ENDPOINTS)
    return any(score is not None and not math.isfinite(score) for score in scores)


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """One line a pre-training seed: fine-tune repeats are averaged before anything else.

    A seed one of whose repeats failed counts as failed (``ok`` False) and has no score.
    """
    used = runs[~runs["ambiguous"]]
    numbers = [*ENDPOINTS, *COSTS, *RATES]
    grouped = used.groupby(CELL, sort=True)
    frame = grouped[numbers].mean()
    frame["ok"] = grouped["ok"].all()
    frame["repeats"] = grouped.size()
    frame.loc[~frame["ok"], list(ENDPOINTS)] = math.nan
    return frame.reset_index()


def long(cell_frame: pd.DataFrame) -> pd.DataFrame:
    """One line a cell and endpoint, without endpoints that a finished cell did not measure."""
    keep = [*CELL, "ok"]
    frame = cell_frame.melt(keep, list(ENDPOINTS), var_name="endpoint", value_name="score")
    measured = frame.groupby([*SECTION, "endpoint"])["score"].transform("count") > 0
    return frame[(frame["score"].notna() | ~frame["ok"]) & measured]


def accuracy(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample sd over the seeds that finished, ``n_ok`` of ``n``."""
    grouped = scores.groupby([*ARM, "endpoint", "epochs"])
    frame = grouped["score"].agg(["mean", "std", "count"])
    frame.columns = pd.Index(["mean", "sd", "n_ok"])
    frame["n"] = grouped.size()
    return frame.reset_index()


# --- comparisons ------------------------------------------------------------------------------


def pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Variant beside baseline of the same seed, epochs and endpoint; failed scores are NaN."""
    base = scores[scores["arm"] == scores["base_arm"]]
    key = [*SECTION, "base_arm", "endpoint", "epochs", "seed"]
    base = base[[*key, "score"]].rename(columns={"score": "base_score"})
    variant = scores[scores["arm"] != scores["base_arm"]]
    return variant.merge(base, on=key, how="inner").sort_values([*key, "arm"])


def differences(scores: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Paired difference variant - baseline at each equal budget, with interval and tests."""
    rows = []
    for key, group in pairs(scores).groupby([*ARM, "endpoint", "epochs"]):
        ours, theirs = group["score"].to_numpy(), group["base_score"].to_numpy()
        both = ~np.isnan(ours - theirs)
        ours, theirs = ours[both], theirs[both]
        found = metrics.estimate(ours - theirs, alpha)
        rows.append(
            {
                **dict(zip([*ARM, "endpoint", "epochs"], key, strict=True)),
                "difference": found.mean,
                "sd": found.sd,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_sign_flip": metrics.sign_flip_p(ours - theirs),
                "correlation": metrics.correlation(ours, theirs),
                "n": found.n,
                "pairs": len(group),
            }
        )
    return pd.DataFrame(rows)


def curves(group: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores of each arm as seeds x epochs; a failed run is minus infinity, a missing one NaN."""
    values = group["score"].where(group["ok"], -math.inf)
    wide = group.assign(score=values).pivot(index="seed", columns=["arm", "epochs"], values="score")
    parts = {str(arm): wide[arm] for arm in sorted(set(group["arm"]))}
    return {arm: part.dropna(how="all").sort_index(axis=1) for arm, part in parts.items()}


def pair_curves(base: pd.DataFrame, variant: pd.DataFrame, reference: int) -> tuple[Curve, Curve]:
    """The two arms on their common seeds.

    Budgets that half of the variant's seeds or fewer have run are left out, then seeds that lack
    one of the rest. A failed run of the variant scores 0: it did not reach the target. A seed
    whose baseline failed at the reference budget is left out, which cannot favour the variant.
    """
    start = base.get(reference, pd.Series(dtype=float))
    ours = variant.loc[variant.index.intersection(start.index[np.isfinite(start)])]
    ours = ours.loc[:, ours.notna().sum() * 2 > len(ours)].dropna()
    scores = np.where(np.isneginf(ours.to_numpy()), 0.0, ours.to_numpy())
    theirs = base.loc[ours.index].replace(-math.inf, math.nan).dropna(axis=1, how="all")
    return _curve(theirs, theirs.to_numpy()), _curve(ours, scores)


def _curve(frame: pd.DataFrame, scores: Array) -> Curve:
    return Curve(frame.columns.to_numpy(dtype=float), scores)


def targets(scores: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Epochs to target: a line a variant, endpoint and target, with its statistics."""
    rows = []
    for key, group in scores.groupby([*SECTION, "base_arm", "endpoint"]):
        names: dict[str, Any] = dict(zip([*SECTION, "base_arm", "endpoint"], key, strict=True))
        by_arm = curves(group)
        base = by_arm.pop(names["base_arm"], pd.DataFrame())
        wanted = analysis.targets(int(epochs) for epochs in base.columns)
        for arm, variant in by_arm.items():
            for rank, reference in enumerate(wanted):
                row = {**names, "arm": arm, "target_epochs": reference, "main_target": rank == 0}
                rows.append(row | _target_row(base, variant, reference, analysis))
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["primary"] = (frame["endpoint"] == analysis.endpoint) & frame["main_target"]
    for _, family in frame.groupby("endpoint"):
        frame.loc[family.index, "p_holm"] = metrics.holm(family["p"].to_numpy())
        frame.loc[family.index, "comparisons"] = int(family["p"].notna().sum())
    return frame


def _target_row(
    base: pd.DataFrame, variant: pd.DataFrame, reference: int, analysis: Analysis
) -> dict[str, Any]:
    theirs, ours = pair_curves(base, variant, reference)
    found = metrics.saving(theirs, ours, reference, analysis.alpha)
    failed = int(np.isneginf(variant.to_numpy()).any(axis=1).sum())
    return {
        "state": found.state,
        "target_top1": found.target,
        "n": found.n,
        "seeds": len(variant),
        "failed_seeds": failed,
        "epochs_variant": found.epochs,
        "rho": found.ratio,
        "rho_low": found.low,
        "rho_high": found.high,
        "bound": found.bound,
        "saved_epochs": reference - found.epochs,
        "saved_share": 1 - 1 / found.ratio,
        "monotone": found.monotone,
        "p": found.p,
        **(_companions(theirs, ours, reference, analysis) if found.n else {}),
    }


def _companions(base: Curve, variant: Curve, reference: int, analysis: Analysis) -> dict[str, Any]:
    """Sign-flip p at equal budgets, non-inferiority at half the reference budget, RAUC."""
    start = base.scores[:, base.epochs == reference][:, 0]
    row: dict[str, Any] = _area_ratio(base, variant, analysis.alpha)
    equal = variant.scores[:, variant.epochs == reference]
    if equal.size:
        row["p_sign_flip"] = metrics.sign_flip_p(equal[:, 0] - start)
    half = variant.scores[:, variant.epochs == reference / 2]
    if half.size:
        row["half_difference"] = float(np.mean(half[:, 0] - start))
        row["half_low"] = metrics.lower_limit(half[:, 0] - start, analysis.alpha)
        row["noninferior"] = row["half_low"] > -analysis.margin
    return row


def _area_ratio(base: Curve, variant: Curve, alpha: float) -> dict[str, Any]:
    common = np.intersect1d(base.epochs, variant.epochs)
    theirs = base.scores[:, np.isin(base.epochs, common)]
    complete = ~np.isnan(theirs).any(axis=1)
    if len(common) < 2 or not complete.any():
        return {}
    ours = variant.scores[:, np.isin(variant.epochs, common)]
    found = metrics.rauc(Curve(common, theirs[complete]), Curve(common, ours[complete]), alpha)
    return dict(zip(("rauc", "rauc_low", "rauc_high"), found, strict=True))


# --- cost -------------------------------------------------------------------------------------


def costs(cell_frame: pd.DataFrame) -> pd.DataFrame:
    """Cost of one pre-training epoch (``<cost>_per_epoch``), the median over an arm's cells."""
    frame = cell_frame[cell_frame["ok"]].copy()
    for name in COSTS:
        frame[PER_EPOCH[name]] = frame[name].where(frame[name] > 0) / frame["epochs"]
    return frame.groupby(ARM)[[*PER_EPOCH.values(), *RATES]].median().reset_index()


def cost_ratios(target_frame: pd.DataFrame, cost_frame: pd.DataFrame) -> pd.DataFrame:
    """Adds rho on each cost axis, and what the target costs either arm.

    rho on an axis is rho on epochs times the baseline's cost of an epoch over the variant's. Its
    interval is that of the epochs; the cost of an epoch is taken as known.
    """
    if target_frame.empty:
        return target_frame
    names = list(PER_EPOCH.values())
    base = cost_frame[cost_frame["arm"] == cost_frame["base_arm"]]
    key = [*SECTION, "base_arm"]
    frame = target_frame.merge(cost_frame[[*ARM, *names]], on=ARM, how="left")
    frame = frame.merge(base[[*key, *names]], on=key, how="left", suffixes=("", "_base"))
    for name, each in PER_EPOCH.items():
        ratio = frame[f"{each}_base"] / frame[each]
        for column in ("rho", "rho_low", "rho_high", "bound"):
            frame[f"{column}_{name}"] = frame[column] * ratio
        frame[f"{name}_base"] = frame[f"{each}_base"] * frame["target_epochs"]
        frame[f"{name}_variant"] = frame[each] * frame["epochs_variant"]
    return frame.drop(columns=[*names, *(f"{each}_base" for each in names)])
