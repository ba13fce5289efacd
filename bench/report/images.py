"""The test-set component of each difference, from which images the runs got right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.errors import few
from bench.report.checks import run_pairs
from bench.stats.analysis import ARM, Analysis, endpoints_of
from bench.stats.images import image_gap
from bench.store.correct import FILE

Flags = npt.NDArray[np.bool_]
Correct = Callable[[str], Mapping[str, Flags]]
"""From the id of a cell to the test images it got right, by endpoint: [draws, images]."""

COLUMNS = ("image_low", "image_high", "discordant", "image_pairs", "images")
KEY = [*ARM, "endpoint", "epochs"]


def image_gaps(runs: pd.DataFrame, correct: Correct | None, analysis: Analysis) -> pd.DataFrame:
    """A line a variant, budget and endpoint whose pairs all left their bits, on the same images."""
    rows: list[dict[str, Any]] = []
    if correct is not None:
        for names, group in run_pairs(runs).groupby([*ARM, "epochs"]):
            ours, theirs = ([correct(i) for i in group[c]] for c in ("run_id", "run_id_base"))
            named = dict(zip([*ARM, "epochs"], names, strict=True))
            for endpoint in analysis.endpoints:
                found = _gap(ours, theirs, endpoint, analysis.alpha)
                rows += [{**named, "endpoint": endpoint, **found}] if found else []
    return pd.DataFrame(rows, columns=[*KEY, *COLUMNS])


def lost_bits(runs: pd.DataFrame, correct: Correct | None) -> list[str]:
    """Which runs of pairs lack bits that others have of the same task, in one line."""
    if correct is None:
        return []
    pairs, scores = run_pairs(runs), runs.set_index("run_id")
    found = {i: correct(i) for i in sorted({*pairs["run_id"], *pairs["run_id_base"]})}
    known = {e for bits in found.values() for e in bits} & set(endpoints_of(runs))
    bare = [
        i
        for i, bits in found.items()
        if any(pd.notna(scores.at[i, e]) for e in known - bits.keys())
    ]
    if not bare:
        return []
    return [
        f"{len(bare)} of {len(found)} runs lack bits in their '{FILE}' (lost, or of an older "
        f"version), so their differences have no interval over images: {few(bare)}"
    ]


def _gap(
    ours: list[Mapping[str, Flags]], theirs: list[Mapping[str, Flags]], endpoint: str, alpha: float
) -> dict[str, Any]:
    bits = [side.get(endpoint, np.zeros((0, 0), bool)) for side in (*ours, *theirs)]
    if len({each.shape for each in bits}) != 1 or not bits[0].size:
        return {}
    found = image_gap(np.concatenate(bits[: len(ours)]), np.concatenate(bits[len(ours) :]), alpha)
    values = (found.low, found.high, found.discordant, len(ours), found.images)
    return dict(zip(COLUMNS, values, strict=True))
