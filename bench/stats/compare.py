"""Variant against baseline: paired differences, epochs to target, ratios of cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bench.stats import means, saving
from bench.stats.analysis import ARM, PER_EPOCH, SECTION, Analysis
from bench.stats.means import Array
from bench.stats.saving import Curve

TESTS = ("p", "p_sign_flip", "half_p")
"""Tests of a comparison; each is adjusted over all comparisons of an endpoint (``_holm``)."""


Statistic = Callable[[Curve, Curve, int, Analysis], Mapping[str, Any]]
"""Columns by name, of the baseline's curve, the variant's, a target's epochs and the analysis."""


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
        found = means.estimate(ours - theirs, alpha)
        rows.append(
            {
                **dict(zip([*ARM, "endpoint", "epochs"], key, strict=True)),
                "difference": found.mean,
                "sd": found.sd,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_sign_flip": means.sign_flip_p(ours - theirs),
                "correlation": means.correlation(ours, theirs),
                "n": found.n,
                "pairs": len(group),
                "diverged": int(group["diverged"].sum()),
            }
        )
    return pd.DataFrame(rows, columns=None if rows else [*ARM, "endpoint", "epochs"])


def curves(group: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Scores of each arm as seeds x epochs; minus infinity where a run diverged, else NaN if none.

    A run that failed otherwise has no score, like one that is missing.
    """
    values = group["score"].mask(group["diverged"], -math.inf)
    wide = group.assign(score=values).pivot(index="seed", columns=["arm", "epochs"], values="score")
    parts = {str(arm): wide[arm] for arm in sorted(set(group["arm"]))}
    return {arm: part.dropna(how="all").sort_index(axis=1) for arm, part in parts.items()}


def pair_curves(base: pd.DataFrame, variant: pd.DataFrame, reference: int) -> tuple[Curve, Curve]:
    """The two arms on their common seeds.

    Budgets that half of the variant's seeds or fewer have run are left out, then seeds that lack
    one of the rest. A run of the variant that diverged scores 0: it did not reach the target. A
    seed whose baseline failed at the reference budget is left out, which cannot favour the variant.
    """
    start = base.get(reference, pd.Series(dtype=float))
    ours = variant.loc[variant.index.intersection(start.index[np.isfinite(start)])]
    ours = ours.loc[:, ours.notna().sum() * 2 > len(ours)].dropna()
    theirs = base.loc[ours.index].replace(-math.inf, math.nan).dropna(axis=1, how="all")
    return Curve(_budgets(theirs), theirs.to_numpy()), _scored(ours)


def _scored(frame: pd.DataFrame) -> Curve:
    """A variant's curve from scores in which minus infinity is a run that diverged."""
    found = frame.to_numpy(dtype=float)
    diverged = np.isneginf(found)
    scores = np.where(diverged, 0.0, found)
    if not diverged.any():
        return Curve(_budgets(frame), scores)
    lowest = np.where(diverged, math.inf, found).min(axis=0, initial=math.inf)
    lowest[np.isinf(lowest)] = 0.0  # all diverged
    return Curve(_budgets(frame), scores, np.where(diverged, lowest, found))


def _budgets(frame: pd.DataFrame) -> Array:
    return frame.columns.to_numpy(dtype=float)


def targets(
    scores: pd.DataFrame, analysis: Analysis, statistics: Sequence[Statistic] = ()
) -> pd.DataFrame:
    """Epochs to target: a line a variant, endpoint and target, with these statistics of it."""
    line = partial(_target_row, analysis=analysis, statistics=statistics)
    rows = []
    for key, group in scores.groupby([*SECTION, "base_arm", "endpoint"]):
        names: dict[str, Any] = dict(zip([*SECTION, "base_arm", "endpoint"], key, strict=True))
        by_arm = curves(group)
        seeds = _seeds(group)
        base = by_arm.pop(names["base_arm"], pd.DataFrame())
        wanted = analysis.targets(int(epochs) for epochs in base.columns)
        for arm, variant in by_arm.items():
            rows += [
                {**names, "arm": arm, "target_epochs": reference, "main_target": rank == 0}
                | line(base, variant, reference, seeds[arm])
                for rank, reference in enumerate(wanted)
            ]
    frame = pd.DataFrame(rows, columns=None if rows else [*ARM, "endpoint", "target_epochs"])
    if frame.empty:
        return frame
    frame["primary"] = (frame["endpoint"] == analysis.endpoint) & frame["main_target"]
    for _, family in frame.groupby("endpoint"):
        frame.loc[family.index, "comparisons"] = int(family["p"].notna().sum())
        for name in TESTS:
            values = family.get(name, pd.Series(math.nan, family.index)).astype(float)
            frame.loc[family.index, f"{name}_holm"] = means.holm(values.to_numpy())
    return frame


def _seeds(group: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many seeds each arm has run, and how many of them have a failed run."""
    fine = group.groupby(["arm", "seed"])["ok"].all().groupby("arm")
    counts = pd.DataFrame({"seeds": fine.size(), "failed_seeds": fine.size() - fine.sum()})
    return {str(arm): row for arm, row in counts.to_dict("index").items()}


def _target_row(
    base: pd.DataFrame,
    variant: pd.DataFrame,
    reference: int,
    seeds: Mapping[str, int],
    analysis: Analysis,
    statistics: Sequence[Statistic],
) -> dict[str, Any]:
    theirs, ours = pair_curves(base, variant, reference)
    found = saving.saving(theirs, ours, reference, analysis.alpha)
    companions: dict[str, Any] = {}
    for statistic in statistics if found.n else ():
        companions |= statistic(theirs, ours, reference, analysis)
    return {
        "state": found.state,
        "target_top1": found.target,
        "n": found.n,
        **seeds,
        "epochs_variant": found.epochs,
        "rho": found.ratio,
        "rho_low": found.low,
        "rho_high": found.high,
        "bound": found.bound,
        "saved_epochs": reference - found.epochs,
        "saved_share": 1 - 1 / found.ratio,
        "monotone": found.monotone,
        "p": found.p,
        **companions,
    }


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
