"""In which settings the arms of two studies differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.plan.layers import flat
from bench.report import words
from bench.report.sections import Findings

Row = tuple[str, str]
"""A data set and an arm on it."""

Values = dict[str, set[str]]
"""By the name of a setting, what it is in the runs of an arm."""

OF_A_CELL = ("seed", "pretrain.epochs", "own", "alias")
"""Settings by which the runs of an arm differ, or that its name says."""

DEFAULT = "default"
"""For a setting that came later: it is left out of a configuration that has its default."""

USED = ("left out", "used")
"""For a section, such as that of a task, which one study has and the other has not."""


def settings_of(study: Findings) -> dict[Row, Values]:
    """By data set and arm, the values of each setting in the finished runs."""
    found: dict[Row, Values] = {}
    runs = study.runs[study.runs["ok"] & ~study.runs["ambiguous"]]
    for data, arm, run_id in zip(runs["data"], runs["arm"], runs["run_id"], strict=True):
        config = study.folders.settings(run_id) if study.folders else {}
        for key, value in flat(_as_typed(config)).items():
            if key not in OF_A_CELL and not key.endswith(".repeat"):
                found.setdefault((data, arm), {}).setdefault(key, set()).add(_said(value))
    return found


def _said(value: Any) -> str:
    return words.NONE if value in ("", None) else str(value)


def _as_typed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the names that a command gives to settings, as ``mae.mask_ratio``."""
    named = {k: v for k, v in config.items() if k not in ("hyper", "plugins")}
    plugins = config.get("plugins")
    for pair in plugins if isinstance(plugins, list) else ():
        if isinstance(pair, list) and len(pair) == 2:
            named[str(pair[0])] = pair[1]
    return {**named, str(config.get("method")): config.get("hyper")} if named else named


def differing(
    ours: Mapping[Row, Values], theirs: Mapping[Row, Values]
) -> list[tuple[str, str, str]]:
    """Settings in which arms of both studies differ, with both values; which arms, if not all."""
    rows = sorted(ours.keys() & theirs.keys())
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        for difference in set(_unlike_of(ours[row], theirs[row])):
            found.setdefault(difference, []).append(row)
    several = len({data for data, _ in rows}) > 1
    said = []
    for (key, one, two), those in sorted(found.items()):
        having = [row for row in rows if any(_has(side[row], key) for side in (ours, theirs))]
        named = ", ".join(f"{arm} on {data}" if several else arm for data, arm in those)
        said.append((key if those == having else f"{key} ({named})", one, two))
    return said


def _unlike_of(one: Values, two: Values) -> Iterable[tuple[str, str, str]]:
    """Of one arm; a section that one of the studies lacks is one difference."""
    ours, theirs = ({key.partition(".")[0] for key in side} for side in (one, two))
    for key in one.keys() | two.keys():
        section = key.partition(".")[0]
        if section not in ours & theirs:
            yield section, USED[section in ours], USED[section in theirs]
        elif one.get(key) != two.get(key):
            yield key, _values(one, key), _values(two, key)


def _has(values: Values, key: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in values)


def _values(values: Values, key: str) -> str:
    return ", ".join(sorted(values.get(key, {DEFAULT})))
