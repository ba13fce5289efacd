"""The tables a reader sees: a section's frames as columns of words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.aggregate import ENDPOINTS
from bench.reporting import checks, words
from bench.reporting.study import Key, Study


@dataclass(frozen=True)
class Table:
    """A table in words: file name, title, column heads, rows; ``note`` stands under it."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def caption(study: Study, key: Key) -> str:
    """What every table must state about its runs."""
    runs = study.part(study.runs, key)
    commits = zip(runs["commit"], runs["dirty"], strict=True)
    code = sorted({checks.code_version(commit, dirty) for commit, dirty in commits})
    matched = sorted(set(study.part(study.matching, key)["matched"]))
    parts = [
        f"data {key[0]}",
        f"model {key[1]}",
        f"recipe {key[2]}",
        f"seeds {spans(runs['seed'])}",
        f"code {', '.join(code)}",
        f"hardware {'; '.join(sorted(set(runs['hardware']))) or 'unknown'}",
        "; ".join(matched) or "no pairs to match",
    ]
    text = " · ".join(parts)
    has_mto = any("mto" in plugins for plugins in runs["plugins"])
    return f"{text}. {words.RECONSTRUCTION}" if has_mto else text


def spans(values: Iterable[int]) -> str:
    """Integers as ranges: ``0-4, 7``."""
    found: list[list[int]] = []
    for value in sorted(set(values)):
        if found and value == found[-1][1] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in found)


def accuracy_table(study: Study, key: Key) -> Table:
    """Accuracy by method and budget, with the paired difference from the baseline."""
    accuracy, differences = study.part(study.accuracy, key), study.part(study.differences, key)
    endpoints = [e for e in study.analysis.endpoints if e in set(accuracy["endpoint"])]
    cells = study.part(study.cells, key)
    rates = cells.groupby(["arm", "epochs"])[["images_per_s", "pretrain_s"]].mean()
    rows = []
    for (epochs, _, arm), group in _by_budget(accuracy):
        by_endpoint = {row["endpoint"]: row for row in group.to_dict("records")}
        row = [arm, str(epochs)]
        for endpoint in endpoints:
            found = by_endpoint.get(endpoint, {})
            row.append(words.mean_sd(found.get("mean"), found.get("sd")))
            row.append(_difference(differences, arm, epochs, endpoint))
        shown = by_endpoint.get(study.analysis.endpoint) or group.to_dict("records")[0]
        rate = rates.loc[(arm, epochs)]
        row += [f"{shown['n_ok']}/{shown['n']}", words.number(rate["images_per_s"], 0)]
        rows.append([*row, words.duration(rate["pretrain_s"])])
    heads = [h for e in endpoints for h in (ENDPOINTS[e], "Δ [95 %]")]
    columns = ["method", "epochs", *heads, "n ok/n", "images/s", "pre-training"]
    note = (
        "Mean ± sample sd over seeds, in per cent, after the last epoch. Δ is variant - baseline "
        "on the same seeds at equal epochs, with its paired t interval."
    )
    return Table("accuracy", "Accuracy by method and budget", columns, rows, note)


def _by_budget(accuracy: pd.DataFrame) -> Any:
    """Groups by epochs, the baseline above its variants."""
    order = accuracy.assign(variant=accuracy["arm"] != accuracy["base_arm"])
    order["rank"] = order["base_arm"] + order["variant"].map({False: "0", True: "1"})
    return order.groupby(["epochs", "rank", "arm"])


def _difference(frame: pd.DataFrame, arm: str, epochs: int, endpoint: str) -> str:
    if frame.empty:
        return ""
    at = (frame["arm"] == arm) & (frame["epochs"] == epochs) & (frame["endpoint"] == endpoint)
    for row in frame[at].to_dict("records"):
        shown = words.number(row["difference"], sign=True)
        return f"{shown} {words.interval(row['low'], row['high'], sign=True)}".strip()
    return ""


def target_table(study: Study, key: Key) -> Table:
    """Epochs to target: rho, its interval, the tests and the verdict."""
    rows = []
    for row in study.part(study.targets, key).to_dict("records"):
        known = row["state"] == "measured"
        saved = f"{row['saved_epochs']:.0f} ({row['saved_share']:.0%})" if known else words.NONE
        rows.append(
            [
                row["arm"],
                ENDPOINTS[row["endpoint"]] + ("" if row["primary"] else " (secondary)"),
                words.number(row["target_top1"]),
                str(row["target_epochs"]),
                words.number(row["epochs_variant"], 0),
                words.factor(row),
                saved,
                words.factor(row, "pretrain_s"),
                words.p_value(row["p_holm"]),
                words.sign_flip(row.get("p_sign_flip"), row["n"], study.analysis.alpha),
                f"{row['n']}/{row['seeds']}",
                row["verdict"],
            ]
        )
    columns = [
        "method",
        "endpoint",
        "target (%)",
        "baseline epochs",
        "method epochs",
        "ρ epochs [95 %]",
        "saved",
        "ρ wall time",
        "p (Holm)",
        "p (sign flip)",
        "n/seeds",
        "verdict",
    ]
    note = (
        "ρ = baseline's epochs over the method's epochs to the same accuracy; above 1 the method "
        "needs fewer. The interval inverts the paired t test and covers seeds, not test images."
    )
    return Table("epochs_to_target", "Epochs to target", columns, rows, note)


def section_tables(study: Study, key: Key) -> list[Table]:
    """All tables of a section that have rows."""
    tables = [accuracy_table(study, key), target_table(study, key)]
    return [table for table in tables if table.rows]
