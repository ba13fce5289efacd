"""Two studies side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.errors import shown
from bench.report import checks, markdown, unlike, words
from bench.report.sections import Findings
from bench.report.tables import Table
from bench.stats.analysis import endpoint_label, rows_of
from bench.stats.means import estimate

Rows = Iterable[Mapping[str, Any]]
Values = Mapping[str, Any]
"""Of a report.json."""

CELL = ["data", "model", "arm", "endpoint", "epochs"]

Shared = Mapping[tuple[str, str], str]
"""By data set and model, what the recipes are called where each study has one alone.

There they are compared though they may differ; elsewhere rows of two recipes never meet.
"""

MOST = 120
"""Characters of a value that is shown."""


def text(a: Findings, b: Findings, names: tuple[str, str]) -> str:
    """Markdown: accuracy, rho, and what else differs."""
    lines = [f"# {names[0]} against {names[1]}", ""]
    shared = _shared(a.scores, b.scores)
    for table in (_accuracy(a, b, names, shared), _rho(a, b, names, shared)):
        if table.rows:
            lines += [f"## {table.title}", "", *markdown.table_lines(table), "", table.note, ""]
    lines += ["## What else differs", "", *_differing(a, b, names)]
    return "\n".join(lines).rstrip() + "\n"


def brief(a: Values, b: Values, names: tuple[str, str]) -> str:
    """Markdown: the means of two report.json side by side, and their words on ρ; nothing paired."""
    lines = [f"# {names[0]} against {names[1]}", ""]
    key = ["data", "model", "arm", "endpoint"]
    columns = [*key, "epochs"]
    values = ["mean", "sd", "n_ok"]
    ours, theirs = (_frame(side["accuracy"], columns, values) for side in (a, b))
    shared = _shared(ours, theirs)
    means = _beside(ours, theirs, columns, shared)
    columns += _recipe(means)
    rows = [
        [*_named(row, columns), *(_summary(row, side) for side in "ab")] for row in rows_of(means)
    ]
    heads = ["data", "method", "endpoint", *columns[4:], *names]
    note = "Mean ± sample sd over seeds. A report.json holds no single seeds: nothing is paired."
    note += _on_recipes(means, shared)
    table = Table("compare", "Accuracy", heads, rows, note)
    lines += [f"## {table.title}", "", *markdown.table_lines(table), "", note, ""]
    columns = [*key, "target_epochs"]
    ours, theirs = (_frame(side["targets"], columns, ["rho_words", "verdict"]) for side in (a, b))
    said = _beside(ours, theirs, columns, shared)
    columns += _recipe(said)
    rows = [
        [*_named(row, columns), *(row[f"{n}_{s}"] for s in "ab" for n in ("rho_words", "verdict"))]
        for row in rows_of(said.fillna(words.NONE))
    ]
    if rows:
        heads = ["data", "method", "endpoint", "target", *columns[5:], *_target_heads(names)]
        table = Table("compare_rho", "Epochs to target", heads, rows)
        lines += [f"## {table.title}", "", *markdown.table_lines(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _frame(rows: Rows, key: list[str], values: list[str]) -> pd.DataFrame:
    """Of the rows of a report.json, what is compared."""
    frame = pd.DataFrame(list(rows), columns=[*key, "recipe", *values])
    return frame.assign(recipe=frame["recipe"].fillna("").astype(str))


def _shared(a: pd.DataFrame, b: pd.DataFrame) -> Shared:
    ours, theirs = (_recipes(frame) for frame in (a, b))
    return {
        section: " / ".join(dict.fromkeys((*ours[section], *theirs[section])))
        for section in ours.keys() & theirs.keys()
        if len(ours[section]) == len(theirs[section]) == 1
    }


def _recipes(frame: pd.DataFrame) -> dict[tuple[str, str], set[str]]:
    """By data set and model, the evaluation recipes of a study."""
    found: dict[tuple[str, str], set[str]] = {}
    for data, model, recipe in zip(frame["data"], frame["model"], frame["recipe"], strict=True):
        found.setdefault((data, model), set()).add(recipe)
    return found


def _beside(a: pd.DataFrame, b: pd.DataFrame, key: list[str], shared: Shared) -> pd.DataFrame:
    """The rows of two studies side by side, those of recipes not shared apart."""
    one, two = (_renamed(frame, shared) for frame in (a, b))
    return one.merge(two, on=[*key, "recipe"], how="outer", suffixes=("_a", "_b"))


def _renamed(frame: pd.DataFrame, shared: Shared) -> pd.DataFrame:
    rows = zip(frame["data"], frame["model"], frame["recipe"], strict=True)
    return frame.assign(recipe=[shared.get((data, model), recipe) for data, model, recipe in rows])


def _recipe(both: pd.DataFrame) -> list[str]:
    """The column that tells rows of several recipes apart, where there are such rows."""
    return ["recipe"] * any(len(found) > 1 for found in _recipes(both).values())


def _on_recipes(both: pd.DataFrame, shared: Shared) -> str:
    """What a reader of rows side by side must know where there are several evaluation recipes."""
    said = " Rows of different evaluation recipes stay apart." if _recipe(both) else ""
    if found := [f"{data}: {name}" for (data, _), name in sorted(shared.items()) if " / " in name]:
        said += f" The studies evaluate by different recipes ({'; '.join(found)}): a difference "
        said += "between them is that of the recipes too."
    return said


def _named(row: dict[str, Any], columns: list[str]) -> list[str]:
    """The cell a row is about, without its model."""
    values = {**row, "endpoint": endpoint_label(row["endpoint"])}
    return [str(values[name]) for name in columns if name != "model"]


def _summary(row: dict[str, Any], side: str) -> str:
    mean, sd, n = (row[f"{name}_{side}"] for name in ("mean", "sd", "n_ok"))
    return words.NONE if words.is_missing(mean) else f"{words.mean_sd(mean, sd)} (n {n:.0f})"


def _target_heads(names: tuple[str, str]) -> list[str]:
    return [f"{what} {name}" for name in names for what in ("ρ epochs", "verdict")]


def _accuracy(a: Findings, b: Findings, names: tuple[str, str], shared: Shared) -> Table:
    both = _beside(a.scores, b.scores, [*CELL, "seed"], shared)
    key, recipe = [*CELL, "recipe"], _recipe(both)
    rows = []
    for place, group in both.groupby(key):
        cell = dict(zip(key, place, strict=True))
        pairs = group.dropna(subset=["score_a", "score_b"])
        found = estimate((pairs["score_b"] - pairs["score_a"]).to_numpy(), a.analysis.alpha)
        gain = {"difference": found.mean, "low": found.low, "high": found.high}
        row = _named(cell, ["data", "arm", "epochs", "endpoint", *recipe])
        row += [_mean(group["score_a"]), _mean(group["score_b"])]
        rows.append([*row, words.gain(gain), str(found.n), words.p_value(found.p)])
    columns = ["data", "method", "epochs", "endpoint", *recipe, *names]
    columns += [f"{names[1]} - {names[0]} [95 %]", "pairs", "p (t)"]
    note = "Differences are paired by seed; mean ± sample sd over all finished seeds of a study."
    return Table("compare", "Accuracy", columns, rows, note + _on_recipes(both, shared))


def _mean(scores: pd.Series[float]) -> str:
    return words.mean_sd(scores.mean(), scores.std()) + f" (n {scores.count()})"


def _rho(a: Findings, b: Findings, names: tuple[str, str], shared: Shared) -> Table:
    key = ["data", "model", "arm", "endpoint", "target_epochs"]
    if a.targets.empty or b.targets.empty:
        return Table("compare_rho", "", [], [])
    columns = [*key, "recipe", "rho_words", "verdict"]
    both = _beside(a.targets[columns], b.targets[columns], key, shared)
    place = [*key, *_recipe(both)]
    rows = []
    for row in rows_of(both.fillna(words.NONE)):
        said = [row[f"{name}_{side}"] for side in "ab" for name in ("rho_words", "verdict")]
        rows.append([*_named(row, place), *said])
    heads = [*key[:1], "method", *place[3:], *_target_heads(names)]
    return Table("compare_rho", "Epochs to target", heads, rows)


def _differing(a: Findings, b: Findings, names: tuple[str, str]) -> list[str]:
    ours, theirs = _facts(a), _facts(b)
    settings = unlike.settings_of(a), unlike.settings_of(b)
    found = [(label, ours[label], theirs[label]) for label in ours if ours[label] != theirs[label]]
    found += unlike.differing(*settings)
    lines = [
        f"- {label}: {names[0]} {shown(one, MOST)}; {names[1]} {shown(two, MOST)}"
        for label, one, two in found
    ]
    known = "settings, " if all(settings) else ""
    same = f"Nothing: same code, hardware, {known}recipe, seeds, versions and analysis."
    lines = lines or [same]
    if lacking := [name for name, side in zip(names, settings, strict=True) if not side]:
        missing = " and ".join(dict.fromkeys(lacking))
        lines += ["", f"Settings are not compared: no config.json of a finished run of {missing}."]
    return lines


def _facts(study: Findings) -> dict[str, str]:
    runs, analysis = study.runs, study.analysis
    versions = {f"{k} {v}" for found in runs["versions"] for k, v in found.items()}
    return {
        "code": ", ".join(checks.code_versions(runs)),
        "hardware": "; ".join(checks.hardware(runs)) or "unknown",
        "recipe": ", ".join(sorted(set(runs["recipe"]))),
        "seeds": checks.spans(runs["seed"]),
        "versions": ", ".join(sorted(versions)) or "unknown",
        "endpoint": endpoint_label(analysis.endpoint),
        "target epochs": ", ".join(map(str, analysis.targets(runs["epochs"]))),
        "margin": f"{analysis.margin:g}",
        "alpha": f"{analysis.alpha:g}",
        "baseline": analysis.baseline or "each arm's own",
    }
