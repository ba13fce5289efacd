"""What a reader must know before believing a table: matching, mixtures, gaps, deviations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from bench.plan.fairness import DECLARED
from bench.plan.layers import flat
from bench.report import words
from bench.stats.analysis import CELL, SECTION, Analysis, measured_endpoints, rows_of
from bench.store.record import WAIT_LIMIT

UNLOGGED, TWO_KINDS = "digests not logged", "digests of two kinds"
"""Why the digests of a pair say nothing. Of two kinds they are if the code of one run is older."""


def matching(runs: pd.DataFrame) -> pd.DataFrame:
    """Per variant: whether its pairs saw the same order, crops and masks as the baseline."""
    key = [*SECTION, "base_arm", "epochs", "seed", "repeat"]
    used = runs[runs["ok"] & ~runs["ambiguous"]][[*key, "arm", "digests"]]
    base = used[used["arm"] == used["base_arm"]].drop(columns="arm")
    variant = used[used["arm"] != used["base_arm"]]
    both = variant.merge(base, on=key, suffixes=("", "_base"))
    rows: list[dict[str, Any]] = []
    for names, group in both.groupby([*SECTION, "base_arm", "arm"]):
        pairs = zip(group["digests"], group["digests_base"], strict=True)
        said = _matched([_differing(a, b) for a, b in pairs])
        named = dict(zip([*SECTION, "base_arm", "arm"], names, strict=True))
        rows.append({**named, "matched": said})
    return pd.DataFrame(rows, columns=[*SECTION, "base_arm", "arm", "matched"])


def _differing(a: dict[str, str], b: dict[str, str]) -> list[str] | str:
    """Names of the streams whose digests differ or are on one side only, or why none compare."""
    if not a and not b:
        return UNLOGGED
    if a and b and _kinds(a) != _kinds(b):
        return TWO_KINDS
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


def _kinds(digests: dict[str, str]) -> set[str]:
    """How digests were made; what stands before the colon, nothing in records of the first kind."""
    return {text.rpartition(":")[0] for text in digests.values()}


def _matched(found: list[list[str] | str]) -> str:
    bad = [names for names in found if names and isinstance(names, list)]
    if bad:
        streams = ", ".join(sorted({name for names in bad for name in names}))
        return f"differs in {streams} ({len(bad)} of {len(found)} pairs)"
    for reason in (UNLOGGED, TWO_KINDS):
        if reason in found:
            return f"{reason} ({found.count(reason)} of {len(found)} pairs)"
    return words.MATCHED


Settings = Callable[[str], Mapping[str, Any]]
"""From the id of a cell to its resolved settings, nested by section."""

PER_BUDGET = ("pretrain.epochs", "seed")
"""Settings that are a run's own."""


def unlike(runs: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Per variant ``unlike``: the undeclared settings in which a pair of runs, or budgets, differ.

    A variant is set against its baseline at another budget too, so both arms must have the same
    settings at every one.
    """
    key = [*SECTION, "base_arm", "arm"]
    pairs, spread = run_pairs(runs), _over_budgets(runs, settings)
    rows = []
    for names, group in pairs.groupby(key):
        named = dict(zip(key, names, strict=True))
        said = [f"arms differ in {text}" for text in [_apart(group, settings)] if text]
        both = {**named, "arm": named["base_arm"]}, named
        said += [text for each in both if (text := spread.get(tuple(each.values())))]
        rows.append({**named, "unlike": "; ".join(dict.fromkeys(said))})
    return pd.DataFrame(rows, columns=[*key, "unlike"])


def _apart(pairs: pd.DataFrame, settings: Settings) -> str:
    """Settings in which the runs of pairs differ, with both values."""
    found: dict[str, None] = {}
    for one, two in zip(pairs["run_id_base"], pairs["run_id"], strict=True):
        base, ours = flat(settings(one)), flat(settings(two))
        other = base.get("method") != ours.get("method")  # then the methods are what is compared
        declared = (*DECLARED, "method", "hyper.") if other else DECLARED
        for key in sorted(base.keys() & ours.keys()):
            if base[key] != ours[key] and not key.startswith(declared):
                found[f"{key} ({base[key]} and {ours[key]})"] = None
    return "; ".join(found)


def _over_budgets(runs: pd.DataFrame, settings: Settings) -> dict[tuple[str, ...], str]:
    """Per arm, baselines too: settings in which its budgets differ, one run of each looked at."""
    key, found = [*SECTION, "base_arm", "arm"], {}
    used = runs[runs["ok"] & ~runs["ambiguous"]].sort_values([*key, "epochs", "seed", "repeat"])
    for names, group in used.groupby(key):
        firsts = [flat(settings(run)) for run in group.drop_duplicates("epochs")["run_id"]]
        differing = [
            name
            for name in sorted(set.intersection(*map(set, firsts)))
            if name not in PER_BUDGET and any(one[name] != firsts[0][name] for one in firsts)
        ]
        if differing:
            arm = names[-1]
            found[names] = f"budgets of {arm} differ in {', '.join(differing)}"
    return found


def run_pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """Ids of the finished runs of each variant beside those of the baseline."""
    key = [*SECTION, "base_arm", "epochs", "seed", "repeat"]
    used = runs[runs["ok"] & ~runs["ambiguous"]][[*key, "arm", "run_id"]]
    base = used[used["arm"] == used["base_arm"]].drop(columns="arm")
    return used[used["arm"] != used["base_arm"]].merge(base, on=key, suffixes=("", "_base"))


def code_versions(runs: pd.DataFrame) -> list[str]:
    """Commits of the finished runs, marked where the working tree had changes."""
    runs = runs[runs["ok"]]
    pairs = set(zip(runs["commit"], runs["dirty"], strict=True))
    names = ((commit[:10] or "unknown") + ("+dirty" if dirty else "") for commit, dirty in pairs)
    return sorted(names)


def hardware(runs: pd.DataFrame) -> list[str]:
    """Hardware of the finished runs."""
    return sorted(set(runs.loc[runs["ok"], "hardware"]))


def mixed_hardware(runs: pd.DataFrame) -> pd.DataFrame:
    """Per variant: whether it and its baseline finished on more than one kind of hardware."""
    key = [*SECTION, "base_arm"]
    used = runs.loc[runs["ok"], [*key, "arm", "hardware"]].drop_duplicates()
    base = used["arm"] == used["base_arm"]
    each = used[~base].merge(used[base].drop(columns="arm"), on=key, suffixes=("", "_base"))
    kinds = each.melt([*key, "arm"], ["hardware", "hardware_base"], value_name="kind")
    counts = kinds.groupby([*key, "arm"])["kind"].nunique()
    return counts.gt(1).rename("mixed_hardware").reset_index()


def warnings(runs: pd.DataFrame) -> list[str]:
    """Mixtures inside one table, ambiguous cells and failures, in words."""
    found = []
    for (data, model, recipe), group in runs[runs["ok"]].groupby(SECTION):
        found += [f"{data} · {model} · {recipe}: {text}" for text in _mixtures(group)]
    for (data, model), group in runs.groupby(["data", "model"]):
        recipes = sorted(set(group["recipe"]))
        if len(recipes) > 1:
            names = ", ".join(recipes)
            found.append(f"{data} · {model}: {len(recipes)} recipes ({names}), in tables apart")
    return found + _told(runs) + _waits(runs) + _ambiguous(runs) + _failures(runs)


TOLD = ("image(s) replaced:", "file(s) left out:", "copies of training", "without a test image")
"""Parts of the notes on a data set that a reader of its table is to see."""


def _told(runs: pd.DataFrame) -> list[str]:
    """What the runs noted of their images."""
    found = []
    for data, group in runs[runs["ok"]].groupby("data"):
        notes = dict.fromkeys(note for each in group["notes"] for note in each)
        found += [f"{data}: {note}" for note in notes if any(part in note for part in TOLD)]
    return found


def _waits(runs: pd.DataFrame) -> list[str]:
    """Arms whose pre-trainings waited for data: their times are the loader's."""
    runs = runs[runs["ok"]]
    slow = runs[pd.to_numeric(runs["data_wait_share"]) > WAIT_LIMIT]
    return [
        f"{arm} on {data}: {len(group)} runs spent up to {group['data_wait_share'].max():.0%} of "
        "pre-training waiting for data: more --workers; its times are the loader's"
        for (arm, data), group in slow.groupby(["arm", "data"])
    ]


def _mixtures(group: pd.DataFrame) -> Iterable[str]:
    codes = code_versions(group)
    if len(codes) > 1:
        yield f"mixed code versions: {', '.join(codes)}"
    machines = hardware(group)
    if len(machines) > 1:
        found = mixed_hardware(group)
        mixed = sorted(found.loc[found["mixed_hardware"], "arm"])
        apart = f", not those of {', '.join(mixed)}" if mixed else ""
        yield f"mixed hardware ({'; '.join(machines)}): times compare within one kind alone{apart}"
    for endpoint in sorted({key for added in group["added"] for key in added}):
        recipes = {added[endpoint] for added in group["added"] if endpoint in added}
        if len(recipes) > 1:
            yield f"{endpoint} was added with {len(recipes)} recipes: its scores do not compare"
    for name in sorted({key for versions in group["versions"] for key in versions}):
        values = sorted({versions.get(name, "unknown") for versions in group["versions"]})
        if len(values) > 1:
            yield f"mixed versions of {name}: {', '.join(values)}"


def spans(values: Iterable[int]) -> str:
    """Integers as ranges: ``0-4, 7``."""
    found: list[list[int]] = []
    for value in sorted(set(values)):
        if found and value == found[-1][1] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in found)


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['arm']} on {row['data']}, {row['epochs']} epochs, seed {row['seed']}"


def _ambiguous(runs: pd.DataFrame) -> list[str]:
    doubled = runs[runs["ambiguous"]]
    return [
        f"{_cell(rows_of(group)[0])}: {len(group)} runs with different settings "
        f"({', '.join(group['run_id'])}); none is used. Name one in the plan."
        for _, group in doubled.groupby([*CELL, "repeat"])
    ]


def _failures(runs: pd.DataFrame) -> list[str]:
    left_out = "it is the baseline, so its seed has no pair at these epochs"
    missed = "it counts as not reaching the target"
    nothing = "that says nothing of the arm, so its seed has no pair until --retry mends it"
    return [
        f"{_cell(row)}: failed ({row['failure'] or row['status']}); "
        + (left_out if row["arm"] == row["base_arm"] else missed if row["diverged"] else nothing)
        for row in rows_of(runs[~runs["ok"]])
    ]


def deviations(runs: pd.DataFrame, analysis: Analysis) -> list[str]:
    """Seeds, budgets and arms that were run but not planned, and endpoints that were added."""
    if not analysis.planned:
        return []
    found = []
    for kind, column, planned in (
        ("arm", "arm", analysis.arms),
        ("budget", "epochs", analysis.budgets),
        ("seed", "seed", analysis.seeds),
    ):
        extra = sorted(set(runs[column]) - set(planned)) if planned else []
        if extra:
            found.append(f"{kind} not in the plan: {', '.join(map(str, extra))}")
    measured = measured_endpoints(runs)
    if analysis.endpoint not in measured:
        found.append(f"the planned primary endpoint was not measured: {analysis.endpoint}")
    added = [e for e in measured if e not in analysis.endpoints]
    if added:
        found.append(f"endpoint not in the plan: {', '.join(added)}")
    return found


def missing(runs: pd.DataFrame, analysis: Analysis) -> list[str]:
    """Cells of the grid arms x budgets x seeds (the plan's, else what was run) without a run."""
    found = []
    for (data, _), group in runs.groupby(["data", "model"]):
        have = set(zip(group["arm"], group["epochs"], group["seed"], strict=True))
        seeds = analysis.seeds or sorted(set(group["seed"]))
        for arm in analysis.arms or sorted(set(group["arm"])):
            for epochs in analysis.budgets or sorted(set(group["epochs"])):
                lacking = [seed for seed in seeds if (arm, epochs, seed) not in have]
                if lacking:
                    found.append(f"{arm} on {data}, {epochs} epochs, seed {spans(lacking)}")
    return found
