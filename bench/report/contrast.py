"""Two studies side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.report import checks, markdown, words
from bench.report.sections import Findings
from bench.report.tables import Table
from bench.stats.analysis import endpoint_label, rows_of
from bench.stats.means import estimate

Rows = Iterable[Mapping[str, Any]]
Values = Mapping[str, Any]
"""Of a report.json."""

CELL = ["data", "model", "arm", "endpoint", "epochs"]


def text(a: Findings, b: Findings, names: tuple[str, str]) -> str:
    """Markdown: accuracy, rho, and what else differs."""
    lines = [f"# {names[0]} against {names[1]}", ""]
    for table in (_accuracy(a, b, names), _rho(a, b, names)):
        if table.rows:
            lines += [f"## {table.title}", "", *markdown.table_lines(table), "", table.note, ""]
    lines += ["## What else differs", "", *_differing(a, b, names)]
    return "\n".join(lines).rstrip() + "\n"


def brief(a: Values, b: Values, names: tuple[str, str]) -> str:
    """Markdown: the means of two report.json side by side, and their words on ρ; nothing paired."""
    lines = [f"# {names[0]} against {names[1]}", ""]
    key = ["data", "model", "arm", "endpoint"]
    columns = [*key, "epochs"]
    means = _outer(a["accuracy"], b["accuracy"], columns, ["mean", "sd", "n_ok"])
    rows = [
        [*_named(row, columns), *(_summary(row, side) for side in "ab")] for row in rows_of(means)
    ]
    heads = ["data", "method", "endpoint", "epochs", *names]
    note = "Mean ± sample sd over seeds. A report.json holds no single seeds: nothing is paired."
    table = Table("compare", "Accuracy", heads, rows, note)
    lines += [f"## {table.title}", "", *markdown.table_lines(table), "", note, ""]
    columns = [*key, "target_epochs"]
    said = _outer(a["targets"], b["targets"], columns, ["rho_words", "verdict"])
    rows = [
        [*_named(row, columns), *(row[f"{n}_{s}"] for s in "ab" for n in ("rho_words", "verdict"))]
        for row in rows_of(said.fillna(words.NONE))
    ]
    if rows:
        heads = ["data", "method", "endpoint", "target", *_target_heads(names)]
        table = Table("compare_rho", "Epochs to target", heads, rows)
        lines += [f"## {table.title}", "", *markdown.table_lines(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _outer(a: Rows, b: Rows, key: list[str], values: list[str]) -> pd.DataFrame:
    one, two = (pd.DataFrame(list(rows), columns=[*key, *values]) for rows in (a, b))
    return one.merge(two, on=key, how="outer", suffixes=("_a", "_b"))


def _named(row: dict[str, Any], columns: list[str]) -> list[str]:
    """The cell a row is about, without its model."""
    shown = {**row, "endpoint": endpoint_label(row["endpoint"])}
    return [str(shown[name]) for name in columns if name != "model"]


def _summary(row: dict[str, Any], side: str) -> str:
    mean, sd, n = (row[f"{name}_{side}"] for name in ("mean", "sd", "n_ok"))
    return words.NONE if words.is_missing(mean) else f"{words.mean_sd(mean, sd)} (n {n:.0f})"


def _target_heads(names: tuple[str, str]) -> list[str]:
    return [f"{what} {name}" for name in names for what in ("ρ epochs", "verdict")]


def _accuracy(a: Findings, b: Findings, names: tuple[str, str]) -> Table:
    both = a.scores.merge(b.scores, on=[*CELL, "seed"], how="outer", suffixes=("_a", "_b"))
    rows = []
    for key, group in both.groupby(CELL):
        cell = dict(zip(CELL, key, strict=True))
        pairs = group.dropna(subset=["score_a", "score_b"])
        found = estimate((pairs["score_b"] - pairs["score_a"]).to_numpy(), a.analysis.alpha)
        gain = {"difference": found.mean, "low": found.low, "high": found.high}
        shown = [str(cell[name]) for name in ("data", "arm", "epochs")]
        shown.append(endpoint_label(str(cell["endpoint"])))
        shown += [_mean(group["score_a"]), _mean(group["score_b"])]
        rows.append([*shown, words.gain(gain), str(found.n), words.p_value(found.p)])
    columns = ["data", "method", "epochs", "endpoint", *names]
    columns += [f"{names[1]} - {names[0]} [95 %]", "pairs", "p (t)"]
    note = "Differences are paired by seed; mean ± sample sd over all finished seeds of a study."
    return Table("compare", "Accuracy", columns, rows, note)


def _mean(scores: pd.Series[float]) -> str:
    return words.mean_sd(scores.mean(), scores.std()) + f" (n {scores.count()})"


def _rho(a: Findings, b: Findings, names: tuple[str, str]) -> Table:
    key = ["data", "model", "arm", "endpoint", "target_epochs"]
    if a.targets.empty or b.targets.empty:
        return Table("compare_rho", "", [], [])
    columns = [*key, "rho_words", "verdict"]
    both = a.targets[columns].merge(b.targets[columns], on=key, how="outer", suffixes=("_a", "_b"))
    rows = []
    for row in rows_of(both.fillna(words.NONE)):
        shown = [
            row["data"],
            row["arm"],
            endpoint_label(row["endpoint"]),
            str(row["target_epochs"]),
        ]
        said = [row[f"{name}_{side}"] for side in "ab" for name in ("rho_words", "verdict")]
        rows.append([*shown, *said])
    heads = [*key[:1], "method", *key[3:], *_target_heads(names)]
    return Table("compare_rho", "Epochs to target", heads, rows)


def _differing(a: Findings, b: Findings, names: tuple[str, str]) -> list[str]:
    lines = []
    ours, theirs = _facts(a), _facts(b)
    for label, mine in ours.items():
        other = theirs[label]
        if mine != other:
            lines.append(f"- {label}: {names[0]} {mine}; {names[1]} {other}")
    return lines or ["Nothing: same code, hardware, recipe, seeds and versions."]


def _facts(study: Findings) -> dict[str, str]:
    runs = study.runs
    versions = {f"{k} {v}" for found in runs["versions"] for k, v in found.items()}
    return {
        "code": ", ".join(checks.code_versions(runs)),
        "hardware": "; ".join(checks.hardware(runs)) or "unknown",
        "recipe": ", ".join(sorted(set(runs["recipe"]))),
        "seeds": checks.spans(runs["seed"]),
        "versions": ", ".join(sorted(versions)) or "unknown",
    }
