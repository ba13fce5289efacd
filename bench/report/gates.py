"""Gates: a line such as ``rho_low(ARM)>1.5`` checked against the report's values.

A gate is a claim, so what bars a claim fails it: a pilot, a curve that is flat, a target of which
only a bound is known, arms that are not matched or not treated alike.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import registry
from bench.errors import GateError, UsageError, shown, unknown
from bench.plan.identity import recipe_digest
from bench.plan.study import Study
from bench.plan.typed import example_arm
from bench.report import claims
from bench.report.words import TIMES
from bench.stats.analysis import Analysis

QUANTITIES = {
    "rho": ("targets", "rho"),
    "rho_low": ("targets", "rho_low"),
    "rho_time": ("targets", "rho_pretrain_s"),
    "saved_epochs": ("targets", "saved_epochs"),
    "saved_share": ("targets", "saved_share"),
    "noninferior": ("targets", "noninferior"),
    "verdict": ("targets", "half"),
    "rauc": ("targets", "rauc"),
    "delta": ("differences", "difference"),
    "delta_low": ("differences", "low"),
    "accuracy": ("accuracy", "mean"),
}
"""Name of a gate: where its value is in report.json."""

TO_TARGET = ("rho", "rho_time", "saved_epochs", "saved_share")
"""Estimates at a target: not defined where only a bound is known or the baseline is flat."""

AT_HALF = ("noninferior", "verdict")
"""Answers about half of a target's epochs: not defined where that budget is not run."""

AREAS = "areas take two budgets that both arms have run"
"""Why there may be no RAUC."""

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
FILTERS = ("endpoint", "epochs", "target_epochs", "data", "model", "recipe")
BUDGETS = {"targets": "target_epochs", "differences": "epochs", "accuracy": "epochs"}
"""The option that names a budget, by where a gate's value is."""

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
FORM = re.compile(r"\s*(\w+)\((.*)\)\s*(?:(>=|<=|==|>|<)\s*(\S+(?: \S+)*)\s*)?")
OPTION = re.compile(r",\s*(\w+)\s*=\s*([^,=()]+?)\s*$")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate as read: what is compared, for which arm and rows, and with what."""

    text: str
    name: str
    arm: str
    options: Mapping[str, str]
    sign: str
    limit: float | str


def parse(expression: str) -> Gate:
    """Reads a gate.

    Raises:
        UsageError: if it is not a gate.
    """
    found = FORM.fullmatch(expression)
    name, inside, sign, limit = found.groups(default="") if found else ("", "", "", "")
    if name and name not in QUANTITIES:
        raise unknown("gate", name, QUANTITIES)
    if name == "noninferior" and not sign:
        sign, limit = "==", "1"
    if not _suits(name, sign, limit):
        arm = example_arm()
        raise UsageError(
            f"'{shown(expression)}' is not a gate. Write it as 'rho_low({arm})>1.5', "
            f"'delta_low({arm}, epochs=200)>0', 'noninferior({arm})' or "
            f"'verdict({arm})==shown'. Known: {', '.join(QUANTITIES)}."
        )
    arm, options = _arguments(inside)
    budget = BUDGETS[QUANTITIES[name][0]]
    if wrong := {"epochs", "target_epochs"} & options.keys() - {budget}:
        raise UsageError(f"'{shown(expression)}': {name} takes {budget}=E, not {wrong.pop()}.")
    value = limit if name == "verdict" else float(limit)
    return Gate(text=expression, name=name, arm=arm, options=options, sign=sign, limit=value)


def _suits(name: str, sign: str, limit: str) -> bool:
    if name == "verdict":
        return sign == "==" and limit in claims.WORDS
    return NUMBER.fullmatch(limit) is not None


def foresee(expression: str, study: Study, standing: Mapping[str, Any] | None = None) -> None:
    """Refuses a gate on what a study will not measure, before it is computed.

    Args:
        expression: as it was typed.
        study: what was asked for.
        standing: the plan that stands, if the study was planned before.

    Raises:
        UsageError: naming what the study has, or what would do.
    """
    gate, configs = parse(expression), [cell.config for cell in study.cells]
    frame = QUANTITIES[gate.name][0]
    arms = {
        c.arm for c in configs if frame == "accuracy" or c.arm != (study.baseline or c.base_arm)
    }
    if gate.arm not in arms:
        kind = "arm" if frame == "accuracy" else "variant"
        raise unknown(kind, gate.arm, arms, f"The gate is '{shown(expression)}'.")
    plan = standing or study.to_plain()
    budgets = sorted({*plan.get("budgets", []), *(c.pretrain.epochs for c in configs)})
    targets = Analysis.of(plan).targets(budgets)
    has: dict[str, set[str]] = {
        "endpoint": {registry.endpoint(name) for name, _ in configs[0].tasks},
        BUDGETS[frame]: {str(epochs) for epochs in (targets if frame == "targets" else budgets)},
        "data": {c.data.name for c in configs},
        "model": {c.model.name for c in configs},
        "recipe": {recipe_digest(c) for c in configs},
    }
    for key, value in gate.options.items():
        if value not in has[key]:
            known = ", ".join(sorted(has[key], key=lambda text: (len(text), text)))
            other = " Another of its budgets: --target E." if key == "target_epochs" else ""
            raise UsageError(
                f"'{shown(expression)}': the study has no {key}={value}. Known: {known}.{other}"
            )
    if lacking := _lacking(gate, budgets, targets):
        raise UsageError(f"'{shown(expression)}': {lacking}")


def _lacking(gate: Gate, budgets: Sequence[int], targets: Sequence[int]) -> str:
    """Which budget a gate needs and a study does not run, and what would do; else empty."""
    if gate.name == "rauc" and len(budgets) < 2:
        return f"{AREAS}, and the study runs {budgets[0]} alone. Add another to --epochs."
    if gate.name not in AT_HALF or gate.limit == claims.UNMEASURABLE:
        return ""
    target = int(gate.options.get("target_epochs", targets[0]))
    if target / 2 in budgets:
        return ""
    ways = [f"{target // 2} among --epochs, with --target {target}"] if target % 2 == 0 else []
    ways += [f"--target {epochs}" for epochs in budgets if epochs / 2 in budgets]
    return (
        f"it asks about half of {target} epochs, which the study does not run; it runs "
        f"{', '.join(map(str, budgets))}. What would do: "
        f"{'; '.join(ways) or 'a --target whose half is among --epochs'}."
    )


def check(expression: str, values: Mapping[str, Any], allow_pilot: bool = False) -> str:
    """Checks a gate on every row it names; see :func:`bench.report.write.gate`."""
    gate = parse(expression)
    frame, column = QUANTITIES[gate.name]
    options = {"endpoint": values["endpoint"], **gate.options}
    rows = [row for row in values[frame] if row["arm"] == gate.arm and _matches(row, options)]
    if not rows:
        arms = sorted({row["arm"] for row in values[frame]})
        has = f"Known: {', '.join(arms)}" if arms else "The study compares nothing"
        raise GateError(f"{expression}: nothing measured for it. {has}.")
    for row in rows:
        if reason := _barred(gate, row, allow_pilot):
            raise GateError(f"{expression} fails: {reason}")
    found = [row[column] for row in rows]
    said = ", ".join(v if isinstance(v, str) else f"{v:.4g}" for v in found)
    if not all(OPERATORS[gate.sign](value, gate.limit) for value in found):
        raise GateError(f"{expression} does not hold: {said}")
    return f"{expression} holds: {said}"


def _barred(gate: Gate, row: Mapping[str, Any], allow_pilot: bool) -> str:
    """Why a row can carry no gate; empty if it can."""
    column = QUANTITIES[gate.name][1]
    if gate.name == "accuracy":
        pilot = claims.pilot(row["n_ok"])
        return pilot.text if pilot and not allow_pilot else _missing(row, column)
    if gate.limit == claims.UNMEASURABLE:
        return ""  # what bars a claim is what this gate asks for
    for barred in claims.obstacles(row):
        if barred.kind == claims.PILOT and allow_pilot:
            continue
        if barred.kind != claims.FLAT or gate.name != "rauc":
            hint = "; --allow-pilot checks it all the same" if barred.kind == claims.PILOT else ""
            return f"{barred.text}{hint}"
    return _unbounded(gate, row) or _missing(row, column)


def _missing(row: Mapping[str, Any], column: str) -> str:
    if row.get(column) is not None:
        return ""  # a statistic that no row has is no column
    whys = {"noninferior": row.get("half_words"), "rauc": AREAS}
    why = whys.get(column, row.get("rho_words"))
    return f"not defined ({why or 'too few finished runs'})"


def _unbounded(gate: Gate, row: Mapping[str, Any]) -> str:
    """That the value is a bound, or that its interval is open on the side the gate leans on."""
    column = QUANTITIES[gate.name][1]
    if gate.name == "rho_low" and not row["rho_low"]:
        return f"the interval is open below ({row['rho_words']})"
    if gate.name == "rho_low" and _leans_up(gate) and not claims.pilot(row["n"]):
        unsaid = row["rho_low"] > 1 and not row["verdict"].startswith(claims.SAVES)
        return row["verdict"] if unsaid else ""
    if gate.name in ("delta", "delta_low") and _leans_up(gate) and row["diverged"]:
        return f"{row['diverged']:.0f} of the variant's runs diverged, and Δ is that of the rest"
    if gate.name not in TO_TARGET:
        return ""
    if column.removeprefix("rho_") in TIMES and row["mixed_hardware"]:
        return "hardware differs: times do not compare"
    if row["state"] != "measured":
        return f"only a bound is known ({row['rho_words']}); rho_low takes the interval's end"
    lower, upper = _leans_up(gate), gate.sign in ("<=", "<", "==")
    if (lower and not row["rho_low"]) or (upper and row["rho_high"] is None):
        return f"the interval is open on that side ({row['rho_words']})"
    return ""


def _leans_up(gate: Gate) -> bool:
    """Whether a gate asks for no less than its limit."""
    return gate.sign in (">=", ">", "==")


def _arguments(inside: str) -> tuple[str, dict[str, str]]:
    """Splits ``mae+x(a,b), epochs=200`` into the arm and the options after it."""
    options = {}
    while option := OPTION.search(inside):
        key, value = option.groups()
        if key not in FILTERS:
            raise unknown("gate option", key, FILTERS)
        known = [registry.endpoint(name) for name in registry.TASKS.ordered()]
        if key == "endpoint" and value not in known:
            raise unknown("endpoint", value, known)
        options[key] = value
        inside = inside[: option.start()]
    return inside.strip(), options


def _matches(row: Mapping[str, Any], options: Mapping[str, str]) -> bool:
    """Options decide; without a target among them only the main target counts."""
    if any(str(row.get(key)) != value for key, value in options.items()):
        return False
    return "target_epochs" in options or row.get("main_target", True)
