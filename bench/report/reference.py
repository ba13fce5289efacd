"""Published numbers (bench/report/published.csv, each with its source) beside our baselines."""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.stats.analysis import rows_of

TOLERANCE = 1.0
"""Points of top-1 within which our baseline counts as a reproduction."""

PROTOCOLS = {"finetune": "finetune_top1", "linear_probe": "probe_top1"}
ENCODERS = {
    "384x12": "vit_small",
    "768x12": "vit_base",
    "1024x24": "vit_large",
    "1280x32": "vit_huge",
}
"""Width x depth, as in a model's name (``ViT 768x12 /16 224px``): name in published.csv."""


@lru_cache(maxsize=1)
def published() -> list[dict[str, str]]:
    """The rows of published.csv."""
    text = files("bench.report").joinpath("published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def encoder(model: str) -> str:
    """The encoder that a model's name tells, or nothing."""
    found = re.search(r"\b\d+x\d+\b", model)
    return ENCODERS.get(found.group(), "") if found else ""


def beside(accuracy: pd.DataFrame, data: str, model: str) -> list[dict[str, Any]]:
    """Our baselines' means beside each published number of the same cell; ImageNet only."""
    if not data.startswith("imagenet"):
        return []
    base = accuracy[accuracy["arm"] == accuracy["base_arm"]]
    ours = {(r["arm"], str(r["epochs"]), r["endpoint"]): r["mean"] for r in rows_of(base)}
    rows = []
    for row in published():
        endpoint = PROTOCOLS[row["protocol"]]
        mean = ours.get((row["method"], row["epochs"], endpoint))
        if mean is not None and row["encoder"] == encoder(model):
            theirs = float(row["top1"])
            within = abs(mean - theirs) <= TOLERANCE
            found = {"endpoint": endpoint, "published": theirs, "ours": mean, "within": within}
            rows.append({**row, **found})
    return rows
