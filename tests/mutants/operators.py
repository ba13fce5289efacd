"""Which faults there are: each changes one place of a module's syntax tree.

Compared are operators, bounds, signs, numbers, conditions, flags, keyword arguments left out, and
statements left out. Texts, annotations, decorators and what an error says are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
SKIPPED = (ast.Raise, ast.Import, ast.ImportFrom, ast.Assert)


@dataclass(frozen=True)
class Mutant:
    """One fault: the module's file, where it is, what stood there and what stands there now."""

    path: str
    function: str
    before: str
    after: str
    number: int
    lines: tuple[int, int]
    at_import: bool
    place: int

    @property
    def name(self) -> str:
        """How lists call it; it outlives edits elsewhere in the file."""
        count = f" #{self.number}" if self.number else ""
        return f"{self.path} {self.function}{count}: {self.before} -> {self.after}"


def mutants(path: str, source: str) -> list[Mutant]:
    """All faults of a file, in order."""
    tree, found, counts = ast.parse(source), [], dict[tuple[str, str, str], int]()
    for place, (site, change) in enumerate(_changes(tree)):
        before, after = _text(site.node), _text(change)
        key = site.function, before, after
        number = counts.get(key, 0)
        counts[key] = number + 1
        found.append(Mutant(path, *key, number, _lines(site.statement), site.at_import, place))
    return found


def mutated(source: str, place: int) -> ast.Module:
    """The tree of a file with the fault of that number in it."""
    tree = ast.parse(source)
    for number, (site, change) in enumerate(_changes(tree)):
        if number == place:
            _put(site, change)
            return ast.fix_missing_locations(tree)
    raise IndexError(place)


@dataclass(frozen=True)
class Site:
    """A node in its tree: the parent's field that holds it, and the statement around it."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    statement: ast.stmt
    function: str
    at_import: bool


def _changes(tree: ast.Module) -> Iterator[tuple[Site, ast.AST]]:
    for site in _sites(tree, tree.body[0], "", True):
        for change in _alternatives(site):
            yield site, change


def _sites(node: ast.AST, statement: ast.stmt, function: str, top: bool) -> Iterator[Site]:
    """Every node that may be changed, outermost first."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        several = isinstance(value, list)
        for index, child in enumerate(value if several else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED) or _is_text(child):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            around = child if isinstance(child, ast.stmt) else statement
            name, inside = function, top
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{function}.{child.name}".strip(".")
                inside = top and isinstance(child, ast.ClassDef)
            place = index if several else None
            yield Site(child, node, field, place, around, name, inside)
            yield from _sites(child, around, name, inside)


def _is_text(node: ast.AST) -> bool:
    """Docstrings, and bare names of things."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _alternatives(site: Site) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    node = site.node
    if isinstance(node, ast.operator | ast.cmpop | ast.boolop) and type(node) in SWAPS:
        yield SWAPS[type(node)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        other = copy.copy(node)
        other.test = ast.UnaryOp(ast.Not(), node.test)
        yield other
    elif isinstance(node, ast.Expr | ast.AugAssign):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Call):
        for number, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                other_call = copy.copy(node)
                other_call.keywords = [k for i, k in enumerate(node.keywords) if i != number]
                yield other_call


def _is_none(node: ast.AST | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


def _other_constants(node: ast.Constant) -> Iterator[ast.Constant]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)


def _put(site: Site, change: ast.AST) -> None:
    if site.index is None:
        setattr(site.parent, site.field, change)
    else:
        getattr(site.parent, site.field)[site.index] = change


def _lines(statement: ast.stmt) -> tuple[int, int]:
    """First and last line of a statement; of a condition or loop its head, of a function all."""
    last = statement.end_lineno or statement.lineno
    if isinstance(statement, ast.FunctionDef):
        return statement.lineno, last
    body = getattr(statement, "body", None)
    return statement.lineno, max(statement.lineno, body[0].lineno - 1) if body else last


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.operator | ast.cmpop | ast.boolop):
        return type(node).__name__
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())[:90]
