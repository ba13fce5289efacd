"""Gates: a line such as ``rho(mae+mto)>=1.5`` checked against the report's values."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from bench.errors import GateError, UsageError, unknown

QUANTITIES = {
    "rho": ("targets", "rho"),
    "rho_low": ("targets", "rho_low"),
    "rho_time": ("targets", "rho_pretrain_s"),
    "saved_epochs": ("targets", "saved_epochs"),
    "saved_share": ("targets", "saved_share"),
    "rauc": ("targets", "rauc"),
    "delta": ("differences", "difference"),
    "accuracy": ("accuracy", "mean"),
}
"""Name of a gate: where its number is in report.json."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FILTERS = ("endpoint", "epochs", "target_epochs", "data", "model", "recipe")
FORM = re.compile(r"\s*(\w+)\((.*)\)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*")
OPTION = re.compile(r",\s*(\w+)\s*=\s*([^,=()]+?)\s*$")


def parse(expression: str) -> tuple[str, str, dict[str, str], str, float]:
    """Quantity, arm, options, operator and limit of a gate.

    Raises:
        UsageError: if it is not a gate.
    """
    found = FORM.fullmatch(expression)
    if found is None:
        raise UsageError(
            f"'{expression}' is not a gate. Write it as 'rho(mae+mto)>=1.5' or "
            f"'delta(mae+mto, epochs=200)>0'. Known: {', '.join(QUANTITIES)}."
        )
    name, inside, sign, limit = found.groups()
    if name not in QUANTITIES:
        raise unknown("gate", name, QUANTITIES)
    return name, *_arguments(inside), sign, float(limit)


def check(expression: str, values: Mapping[str, Any]) -> str:
    """Checks a gate on every row it names; see :func:`bench.report.write.gate`."""
    name, arm, options, sign, limit = parse(expression)
    frame, column = QUANTITIES[name]
    options = {"endpoint": values["endpoint"], **options}
    rows = [row for row in values[frame] if row["arm"] == arm and _matches(row, options)]
    if not rows:
        arms = sorted({row["arm"] for row in values[frame]})
        raise GateError(f"{expression}: nothing measured for it. Known: {', '.join(arms)}.")
    numbers = [_number(row, column, expression) for row in rows]
    shown = ", ".join(f"{number:.4g}" for number in numbers)
    if not all(OPERATORS[sign](number, limit) for number in numbers):
        raise GateError(f"{expression} does not hold: {shown}")
    return f"{expression} holds: {shown}"


def _arguments(inside: str) -> tuple[str, dict[str, str]]:
    """Splits ``mae+mto(a,b), epochs=200`` into the arm and the options after it."""
    options = {}
    while option := OPTION.search(inside):
        key, value = option.groups()
        if key not in FILTERS:
            raise unknown("gate option", key, FILTERS)
        options[key] = value
        inside = inside[: option.start()]
    return inside.strip(), options


def _matches(row: Mapping[str, Any], options: Mapping[str, str]) -> bool:
    """Options decide; without a target among them only the main target counts."""
    if any(str(row.get(key)) != value for key, value in options.items()):
        return False
    return "target_epochs" in options or row.get("main_target", True)


def _number(row: Mapping[str, Any], column: str, expression: str) -> float:
    """The number; where the target lies below the smallest budget, rho's certain bound."""
    value = row[column]
    if value is None and column.startswith("rho") and row["state"] == "beyond":
        value = row["bound" + column.removeprefix("rho")]
    if value is None:
        reason = row.get("rho_words") or "no value"
        raise GateError(f"{expression}: not defined ({reason})")
    return float(value)
