"""Published numbers (bench/published.csv, each with its source) beside our baselines."""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.aggregate import records

TOLERANCE = 1.0
"""Points of top-1 within which our baseline counts as a reproduction."""

PROTOCOLS = {"finetune": "finetune_top1", "linear_probe": "probe_top1"}
WIDTHS = {"384": "vit_small", "768": "vit_base", "1024": "vit_large", "1280": "vit_huge"}
SIZES = {"small": "vit_small", "base": "vit_base", "large": "vit_large", "huge": "vit_huge"}


@lru_cache(maxsize=1)
def published() -> list[dict[str, str]]:
    """The rows of published.csv."""
    text = files("bench").joinpath("published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def encoder(model: str) -> str:
    """The encoder that a model's name or width tells, or nothing: ``vit_base``."""
    for size, name in SIZES.items():
        if size in model.lower():
            return name
    found = re.search(r"(?<!\d)(384|768|1024|1280)(?!\d)", model)
    return WIDTHS[found.group()] if found else ""


def beside(accuracy: pd.DataFrame, data: str, model: str) -> list[dict[str, Any]]:
    """Our baselines' means beside each published number of the same cell; ImageNet only."""
    if not data.startswith("imagenet"):
        return []
    base = accuracy[accuracy["arm"] == accuracy["base_arm"]]
    ours = {(r["arm"], str(r["epochs"]), r["endpoint"]): r["mean"] for r in records(base)}
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
