"""What a study's null arms say: how large a difference must be to mean anything."""

from __future__ import annotations

import math
from typing import Any

from bench.report import words
from bench.report.sections import Section
from bench.stats.analysis import endpoint_label, rows_of
from bench.stats.noise import NULL, RATIOS
from bench.stats.power import POWER


def rows(section: Section) -> list[dict[str, Any]]:
    """The noise floor of each baseline that has a null arm, by endpoint and budget."""
    order = {name: i for i, name in enumerate(section.analysis.endpoints)}
    return sorted(
        rows_of(section.noise),
        key=lambda row: (row["base_arm"], order.get(row["endpoint"], 9), row["epochs"]),
    )


def sentences(section: Section) -> list[tuple[str, str]]:
    """One line a baseline, on the primary endpoint, each with its baseline."""
    primary = [r for r in rows(section) if r["endpoint"] == section.analysis.endpoint]
    lines = []
    for base in dict.fromkeys(row["base_arm"] for row in primary):
        mine = [row for row in primary if row["base_arm"] == base]
        parts = [
            f"paired sd {words.number(r['sd'])} points at {r['epochs']} epochs, so {r['n']} seeds "
            f"resolve {words.number(r['resolved'])}"
            for r in mine
        ]
        name = endpoint_label(section.analysis.endpoint)
        said = f"Noise floor of {base} ({base}{NULL}, {name}): {'; '.join(parts)}."
        lines.append((base, said))
    return lines


COLUMNS = ["baseline", "endpoint", "epochs", "mean ± sd", "gain of a doubling"]
COLUMNS += ["paired sd of two equal arms", "resolved by n seeds"]
COLUMNS += [f"seeds for ρ ×{ratio:g}" for ratio in RATIOS]

NOTE = (
    "An arm X+null equals X but for the first values of its mask tokens: what they differ by is "
    f"noise. Resolved: the smallest difference found with power {POWER:.0%}. Seeds for ρ: to find "
    "as much as the baseline gains by that many times its epochs, by its gain to the next budget "
    "(at the largest: from the one before)."
)


def table_rows(section: Section) -> list[list[str]]:
    """The cells of the table, in words."""
    return [
        [
            row["base_arm"],
            endpoint_label(row["endpoint"]),
            str(row["epochs"]),
            words.mean_sd(row["mean"], row["seed_sd"]),
            words.number(row["gain"], sign=True),
            words.number(row["sd"]),
            f"{words.number(row['resolved'])} (n {row['n']})",
            *(_count(row[f"seeds_{ratio:g}"]) for ratio in RATIOS),
        ]
        for row in rows(section)
    ]


def _count(seeds: float) -> str:
    if words.is_missing(seeds):
        return words.NONE
    return "over 1,000" if math.isinf(seeds) else f"{seeds:.0f}"
