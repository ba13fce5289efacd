"""Every field of every class of settings has a rule, and refuses what no field can mean.

And two rules of the house that no tool holds: plug-ins are named in their rows alone, and
docstrings tell something.
"""

from __future__ import annotations

import ast
import math
import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import registry
from bench.api.rules import Length, Range, Rising, Ruled, Text, hints, make_check, unruled
from bench.errors import UsageError
from bench.launch.slurm.site import Site
from bench.plan.config import Resources, RunConfig
from bench.plan.keys import SECTIONS
from bench.plan.loading import load_section
from bench.plan.sections import PretrainConfig


@cache
def kinds() -> tuple[type, ...]:
    """Every class of settings there is: sections, methods, plug-ins, resources, site."""
    configured = (registry.METHODS, registry.PLUGINS, registry.TASKS)
    own = [kind.config(name) for kind in configured for name in kind.names()]
    named = [*SECTIONS.values(), *own, RunConfig, Resources, Site]
    nested = [h for k in named for h in hints(k).values() if _is_ruled(h)]
    return tuple(dict.fromkeys([*named, *nested]))


def _is_ruled(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Ruled)


def test_a_field_without_a_rule_is_named() -> None:
    assert [name for kind in kinds() for name in unruled(kind)] == []
    assert all(_is_ruled(kind) for kind in kinds()), (
        "a class of settings is not a bench.api.rules.Ruled"
    )


def test_the_search_for_fields_without_a_rule_finds_them() -> None:
    class Bare(Ruled):
        share: float = 0.0
        sizes: tuple[int, ...] = ()
        word: Annotated[str, Text("x", "x")] = "x"
        some: float | None = None
        on: bool = True

    Bare.__dataclass_fields__ = {  # type: ignore[attr-defined]
        n: _field(n) for n in ("share", "sizes", "word", "some", "on")
    }
    Bare.__annotations__ = {
        "share": float,
        "sizes": tuple[int, ...],
        "word": Annotated[str, Text("x", "x")],
        "some": float | None,
        "on": bool,
    }
    assert list(unruled(Bare)) == ["Bare.share", "Bare.sizes", "Bare.some"]


def _field(name: str) -> Any:
    import dataclasses

    made = dataclasses.field()
    made.name, made._field_type = name, dataclasses._FIELD  # type: ignore[attr-defined]
    return made


NOISE = "\x1b[2J"
NUMBERS = [math.nan, math.inf, -math.inf, "nan", "-inf", 1e300, -1e300, "1e999", "x", "", [], {}]
TEXTS = [NOISE, "a\nb", "a\x00b", "x" * 5000, [], {}, None, "\udcff"]


def bad(hint: Any) -> list[Any]:
    """Values that no field of this type can mean."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return bad(inner[0]) + [v for rule in inner[1:] for v in beyond(rule)]
    if origin is tuple:
        listed = [[v] * 2 for v in bad(inner[0])] if inner[0] is not str else []
        return [*listed, 5, {"a": 1}, None, ["x", "y", "z"] if inner[0] is float else 5]
    if origin in (typing.Union, types.UnionType):
        return bad(inner[0])
    if origin is Literal:
        return ["nothing of the kind", NOISE, None, 7, []]
    table = {
        float: [*NUMBERS, None],
        int: [*NUMBERS, None, 1.5, True, 10**30, -(10**30), "1e999"],
        str: TEXTS,
        bool: ["maybe", 2, None, [], NOISE],
    }
    return table.get(hint, [5, "x", None, []])


def beyond(rule: Any) -> list[Any]:
    """Values just past a rule."""
    if isinstance(rule, Range):
        past = [rule.low - 1, rule.high + 1]
        past += [rule.low] * (rule.ends in ("high", "none"))
        return past + [rule.high] * (rule.ends in ("low", "none"))
    if isinstance(rule, Rising):
        return [[0.9, 0.2]]
    if isinstance(rule, Length):
        return [[], [0.5] * (rule.high + 1)]
    return []


def cases() -> Iterator[Any]:
    for kind in kinds():
        for name, hint in hints(kind).items():
            if hint is Any or "Settings" in str(hint):
                continue
            yield pytest.param(kind, name, hint, id=f"{kind.__name__}.{name}")


@pytest.mark.parametrize(("kind", "name", "hint"), list(cases()))
def test_every_field_refuses_what_it_cannot_mean(kind: Any, name: str, hint: Any) -> None:
    """About ten bad values a field, each refused by name in one line."""
    for value in bad(hint):
        with pytest.raises(UsageError) as caught:
            load_section(kind, {name: value}, "here")
        message = str(caught.value)
        assert message.startswith(f"here.{name}") or f"of here.{name}" in message, (value, message)
        assert "\n" not in message, (value, message)
        assert "\x1b" not in message, (value, message)
        assert len(message) < 400


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=3)
)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_is_given_is_taken_or_refused_in_one_line(kind: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(hints(kind))))
    value = data.draw(ANYTHING)
    made, message = None, ""
    try:
        made = load_section(kind, {name: value}, "here")
    except UsageError as error:
        message = str(error)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 1200
    taken = getattr(made, name, None)
    numbers = taken if isinstance(taken, tuple) else (taken,)
    assert all(math.isfinite(v) for v in numbers if isinstance(v, float))


@pytest.mark.parametrize(
    ("rule", "good", "wrong", "message"),
    [
        (Range(0, 1), [0, 1, 0.5], [-0.1, 1.1], "lie in [0, 1]"),
        (Range(0, 1, "none"), [0.5], [0, 1], "lie between 0 and 1"),
        (Range(0, 1, "high"), [1], [0, 2], "be above 0 and at most 1"),
        (Range(0, 1, "low"), [0], [1, -1], "be at least 0 and below 1"),
        (Range(1, 1000), [1, 1000], [0], "be at least 1"),
        (Range(1, 1000), [], [1001], "be at most 1000"),
        (Range(0, 1000, "none"), [], [0], "be above 0"),
        (Rising(), [(1, 2)], [(1, 1), (2, 1)], "rise"),
        (Rising(equal=True), [(1, 1)], [(2, 1)], "rise"),
        (Length(1, 2), [(1,), (1, 2)], [(), (1, 2, 3)], "1 to 2 values"),
        (Text("a+", "some a"), ["a", "aa"], ["", "b", "ab"], "be some a"),
    ],
)
def test_rules(rule: Any, good: list[Any], wrong: list[Any], message: str) -> None:
    assert [rule.complaint(v) for v in good] == [""] * len(good)
    assert all(message in rule.complaint(v) for v in wrong)


def test_the_constructor_holds_to_the_rules_too() -> None:
    with pytest.raises(UsageError, match=r"pretrain\.blr=nan must be finite"):
        PretrainConfig(epochs=1, batch_size=1, blr=math.nan)
    with pytest.raises(UsageError, match=r"pretrain\.betas"):
        PretrainConfig(epochs=1, batch_size=1, blr=1, betas=(0.9, 1.0))
    assert make_check(bool) is None


# --- names and docstrings ---------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
PROJECT = re.compile(r"mto[-_]bench", re.IGNORECASE)
"""The project's own name, which holds a plug-in's."""


def test_a_plugin_is_named_in_the_harness_by_its_row_alone() -> None:
    """Presets name the arms they were tuned for, as a user's file does."""
    own = {row.target.partition(".")[0] for row in registry.PLUGINS.rows.values()} - {"baselines"}
    assert own, "no plug-in has a package of its own"
    named = re.compile(rf"\b({'|'.join(own)})", re.IGNORECASE)
    texts = [p for p in (ROOT / "bench").rglob("*") if p.suffix in (".py", ".css", ".js", ".csv")]
    found = [p.name for p in texts if named.search(PROJECT.sub("", p.read_text()))]
    assert found == ["registry.py"]
    rows = ast.parse((ROOT / "bench/registry.py").read_text()).body
    where = {
        ast.unparse(node.targets[0])
        for node in rows
        if isinstance(node, ast.Assign) and named.search(PROJECT.sub("", ast.unparse(node)))
    }
    others = [n for n in rows if not isinstance(n, ast.Assign)]
    assert where == {"PLUGINS", "MEASURES"}
    assert not [n for n in others if named.search(PROJECT.sub("", ast.unparse(n)))]


FILLERS = {"a", "an", "and", "are", "as", "at", "be", "by", "each", "for", "from", "if", "in", "is"}
FILLERS |= {"it", "its", "no", "not", "of", "on", "one", "or", "that", "the", "this", "to", "what"}
FILLERS |= {"which", "with"}


def tells(name: str, text: str | None) -> bool:
    """Whether a docstring says two words that are neither fillers nor parts of the name."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    words = set(re.findall(r"[a-z]+|\d+|[^\x00-\x7f]", (text or "").lower())) - FILLERS
    return sum(not any(_alike(word, part) for part in parts) for word in words) > 1


def _alike(word: str, part: str) -> bool:
    """``flags`` and ``flag``, ``measured`` and ``measure``: forms of one word."""
    return min(len(word), len(part)) > 2 and (word.startswith(part) or part.startswith(word))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("size", "The size.", False),
        ("add_study_flags", "Adds the study's flags.", False),
        ("size", None, False),
        ("size", "Images in a batch.", True),
    ],
)
def test_telling_docstrings_are_told_apart(name: str, text: str | None, expected: bool) -> None:
    assert tells(name, text) == expected


def public(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, str | None]]:
    yield name, ast.get_docstring(node)
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child.name, ast.get_docstring(child)
        elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public(child, child.name)


def test_public_docstrings_tell_something() -> None:
    packages = [name for name in registry.packages() if (ROOT / name).is_dir()]
    files = [path for name in packages for path in (ROOT / name).rglob("*.py")]
    every = [pair for path in files for pair in public(ast.parse(path.read_text()), path.stem)]
    mute = [name for name, text in every if not tells(name, text)]
    assert len(every) > 1000
    assert len(mute) <= 0.02 * len(every), mute
