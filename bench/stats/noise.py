"""The noise floor: what two arms differ by when chance alone tells them apart (``X+null``)."""

from __future__ import annotations

import math

import pandas as pd

from bench import registry
from bench.stats.analysis import SECTION
from bench.stats.power import POWER, seeds_needed, smallest_effect

NULL = f"+{registry.null_plugin()}"
"""Ending of the arm that equals its baseline."""

RATIOS = (1.5, 2.0)
"""Savings of epochs for which the seeds needed are counted."""


def floors(differences: pd.DataFrame, accuracy: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """One line a null arm, endpoint and budget; empty where a study has no null arm.

    ``sd`` is that of the paired difference of two equal arms on ``n`` seeds, ``resolved`` the
    smallest mean difference that as many seeds find with power :data:`POWER`. ``gain`` is what
    the baseline gains by doubling its epochs, and ``seeds_<ratio>`` how many seeds find a variant
    that needs that many times fewer epochs.
    """
    if differences.empty:
        return differences
    mine = differences["arm"] == differences["base_arm"] + NULL
    frame = differences[mine & (differences["n"] > 1)].copy()
    if frame.empty:
        return frame
    base = accuracy[accuracy["arm"] == accuracy["base_arm"]]
    key = [*SECTION, "base_arm", "endpoint", "epochs"]
    base = base[[*key, "mean", "sd"]].rename(columns={"sd": "seed_sd"})
    frame = frame.merge(_with_gain(base), on=key, how="left")
    pairs = list(zip(frame["n"], frame["sd"], strict=True))
    frame["resolved"] = [smallest_effect(int(n), sd, POWER, alpha) for n, sd in pairs]
    for ratio in RATIOS:
        frame[f"seeds_{ratio:g}"] = _seeds(frame, ratio, alpha)
    return frame


def _with_gain(base: pd.DataFrame) -> pd.DataFrame:
    """Adds the gain of a doubling: to the next budget, at the largest from the one before."""
    parts = []
    for _, part in base.groupby([*SECTION, "base_arm", "endpoint"]):
        curve = part.sort_values("epochs")
        doublings = curve["epochs"].map(math.log2).diff()
        steps = curve["mean"].diff() / doublings
        parts.append(curve.assign(gain=steps.shift(-1).fillna(steps)))
    return pd.concat(parts)


def _seeds(frame: pd.DataFrame, ratio: float, alpha: float) -> list[float]:
    pairs = zip(frame["gain"], frame["sd"], strict=True)
    return [seeds_needed(gain * math.log2(ratio), sd, POWER, alpha) for gain, sd in pairs]
