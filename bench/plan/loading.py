"""Strict loading: a frozen dataclass from the plain values of a file or a command line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from bench.api import rules
from bench.errors import UsageError, shown, unknown


def load_section(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Builds the frozen dataclass ``cls`` from plain values.

    Raises:
        UsageError: for an unknown key, a value of the wrong type, or a missing one.
    """
    hints = rules.hints(cls)
    known = {f.name for f in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown("setting", f"{where}.{shown(key)}", (f"{where}.{k}" for k in known))
    loaded = {k: coerce(v, hints[k], f"{where}.{k}") for k, v in values.items()}
    required = {f.name for f in fields(cls) if _is_required(f)}
    missing = sorted(required - set(loaded))
    if missing:
        names = ", ".join(f"{where}.{m}" for m in missing)
        raise UsageError(f"missing setting: {names}. Set it in the preset or as {names}=VALUE.")
    return cls(**loaded)


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Turns ``value`` into the type ``hint``; numbers in strings are accepted, other types not.

    Raises:
        UsageError: if it does not fit the type, or the rule beside it.
    """
    loaded = _coerce(value, hint, where)
    check = rules.make_check(hint)
    complaint = check(loaded) if check else ""
    if complaint:
        raise UsageError(f"{where}={shown(loaded)} {complaint}.")
    return loaded


def _coerce(value: Any, hint: Any, where: str) -> Any:
    if typing.get_origin(hint) is Annotated:
        return _coerce(value, typing.get_args(hint)[0], where)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return load_section(hint, value, where)
        raise _misfit(value, hint.__name__, where)
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return value
        raise unknown(f"value of {where}", shown(value), map(str, allowed))
    if origin is tuple:
        return _coerce_tuple(value, hint, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else coerce(value, typing.get_args(hint)[0], where)
    return _coerce_scalar(value, hint, where)


def _coerce_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    items = typing.get_args(hint)
    if isinstance(value, str):
        value = [v for v in value.strip("[]() ").split(",") if v.strip()]
    if not isinstance(value, list | tuple):
        raise _misfit(value, "list", where)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise _misfit(value, f"list of {len(items)} values", where)
    return tuple(coerce(v, i, where) for v, i in zip(value, items, strict=True))


def _coerce_scalar(value: Any, hint: type, where: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif hint is str:
        if isinstance(value, str | int | float):
            return str(value)
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if hint is float:
                return number
            if number == int(number):
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    raise _misfit(value, hint.__name__, where)


def _misfit(value: Any, wanted: str, where: str) -> UsageError:
    return UsageError(f"{where}={shown(repr(value))} is not a valid {wanted}.")
