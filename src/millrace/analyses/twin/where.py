"""Conditions and rules: text over column names as a predicate on arrays, and what each of its parts is about.

    age >= 60 and region == 'west'      not (smoker and age < 30)      region in ['west', 'north']      income is None

Names that are no Python names stand in backticks. Nothing but comparisons, and/or/not, + - * / and literals is understood.
A mapping says the same by column: a value, a list of values, or {low: 60, high: 70}.
"""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from millrace.analyses.twin.columns import Column
from millrace.run.errors import WrongQuestion

COMPARED: dict[type[ast.cmpop], Any] = {
    ast.Lt: numpy.less, ast.LtE: numpy.less_equal, ast.Gt: numpy.greater, ast.GtE: numpy.greater_equal,
    ast.Eq: numpy.equal, ast.NotEq: numpy.not_equal,
}  # fmt: skip
RECKONED: dict[type[ast.operator], Any] = {
    ast.Add: numpy.add, ast.Sub: numpy.subtract, ast.Mult: numpy.multiply, ast.Div: numpy.divide,
}  # fmt: skip
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Clause:
    """One of the parts that must all hold. text: as it is told. names: columns that it is about. tree: its syntax."""

    text: str
    names: tuple[str, ...]
    tree: ast.expr

    def holds(self, get: Callable[[str], Any]) -> Any:
        """bool by row; `get(name)` gives a column's values (float64, NaN missing; text, "" with None missing)."""
        with numpy.errstate(invalid="ignore", divide="ignore"):
            return numpy.asarray(_value(self.tree, get), bool)


def clauses(given: Any, columns: Sequence[Column], what: str = "where") -> tuple[Clause, ...]:
    """The parts of a condition, checked against the columns. `WrongQuestion` says what is not understood."""
    if given is None:
        return ()
    text = given if isinstance(given, str) else _text_of(given, what)
    known = {c.name: c for c in columns}
    names: dict[str, str] = {}

    def quoted(match: re.Match[str]) -> str:
        names[f"column_{len(names)}_"] = match[1]
        return list(names)[-1]

    try:
        tree = ast.parse(re.sub(r"`([^`]+)`", quoted, text).strip(), mode="eval").body
    except SyntaxError as e:
        raise WrongQuestion(
            f"{what}={text!r} cannot be read: {e.msg}. Write it as age >= 60 and region == 'west'."
        ) from None
    tree = _Named(names).visit(tree)
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    found = []
    for part in parts:
        _check(part, known, what)
        about = tuple(dict.fromkeys(n.id for n in ast.walk(part) if isinstance(n, ast.Name)))
        if not about:
            raise WrongQuestion(f"{what}: {ast.unparse(part)!r} is about no column.")
        found.append(Clause(ast.unparse(part), about, part))
    _check_inverted(found, what)
    return tuple(found)


class _Named(ast.NodeTransformer):
    """Names in backticks as they are."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), ast.Load())


def _text_of(given: Any, what: str) -> str:
    if not isinstance(given, Mapping):
        raise WrongQuestion(f'{what} is a text such as "age >= 60", or a mapping from columns to values.')
    parts = []
    for name, wanted in given.items():
        if isinstance(wanted, Mapping):
            odd = sorted(set(wanted) - {"low", "high"})
            if odd or not wanted:
                raise WrongQuestion(f"{what}: {name!r} takes low and high, and not {odd or 'nothing'}.")
            for end, sign in (("low", ">="), ("high", "<=")):
                parts += [f"`{name}` {sign} {_written(wanted[end])!r}"] if end in wanted else []
        elif isinstance(wanted, list | tuple | set | frozenset):
            parts.append(f"`{name}` in {[_written(v) for v in wanted]!r}")
        elif wanted is None:
            parts.append(f"`{name}` is None")
        else:
            parts.append(f"`{name}` == {_written(wanted)!r}")
    return " and ".join(parts)


def _written(value: Any) -> Any:
    """NumPy's numbers as Python's, and dates as texts, which is how conditions write them."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def _check(node: ast.AST, known: Mapping[str, Column], what: str) -> None:
    allowed = (
        ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.And, ast.Or,
        ast.Not, ast.USub, ast.Load, ast.In, ast.NotIn, ast.Is, ast.IsNot, *COMPARED, *RECKONED,
    )  # fmt: skip
    for inner in ast.walk(node):
        if not isinstance(inner, allowed):
            raise WrongQuestion(
                f"{what}: {ast.unparse(node)!r} has something other than comparisons, and, or, not and + - * /."
            )
        if isinstance(inner, ast.Name) and inner.id not in known:
            near = [n for n in known if n.lower() == inner.id.lower()] or list(known)[:10]
            raise WrongQuestion(
                f"{what}: there is no column {inner.id!r} (a text stands in quotes). Columns are {', '.join(map(repr, near))}."
            )
    for inner in ast.walk(node):
        if isinstance(inner, ast.Compare):
            _check_levels(inner, known, what)


def _check_levels(node: ast.Compare, known: Mapping[str, Column], what: str) -> None:
    """Texts that a category is compared with are its levels."""
    for a, b in ((node.left, node.comparators[0]), (node.comparators[0], node.left)):
        if not isinstance(a, ast.Name) or a.id not in known or known[a.id].kind not in ("category", "constant"):
            continue
        column = known[a.id]
        levels = {*column.labels, *(label for label, _ in column.pooled)}
        for constant in ast.walk(b):
            if (
                isinstance(constant, ast.Constant)
                and isinstance(constant.value, str)
                and levels
                and constant.value not in levels
            ):
                raise WrongQuestion(
                    f"{what}: {a.id!r} has no level {constant.value!r}; it has {', '.join(map(repr, sorted(levels)[:12]))}."
                )
            if isinstance(constant, ast.Constant) and isinstance(constant.value, int | float) and levels:
                raise WrongQuestion(
                    f"{what}: {a.id!r} is a category, and {constant.value!r} is a number: put it in quotes."
                )


def _check_inverted(found: Iterable[Clause], what: str) -> None:
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for clause in found:
        t = clause.tree
        if not isinstance(t, ast.Compare) or not isinstance(t.left, ast.Name) or len(t.ops) != 1:
            continue
        right = t.comparators[0]
        if isinstance(right, ast.Constant) and isinstance(right.value, int | float):
            if isinstance(t.ops[0], ast.Gt | ast.GtE):
                low[t.left.id] = max(low.get(t.left.id, -numpy.inf), right.value)
            elif isinstance(t.ops[0], ast.Lt | ast.LtE):
                high[t.left.id] = min(high.get(t.left.id, numpy.inf), right.value)
    for name in low:
        if low[name] > high.get(name, numpy.inf):
            raise WrongQuestion(
                f"{what}: {name!r} from {low[name]:g} to {high[name]:g} is an interval the wrong way round."
            )


# -- values ----------------------------------------------------------------------------------------------------------
def _value(node: ast.AST, get: Callable[[str], Any]) -> Any:
    if isinstance(node, ast.Name):
        return get(node.id)
    if isinstance(node, ast.Constant):
        return _plain(node.value)
    if isinstance(node, ast.UnaryOp):
        inner = _value(node.operand, get)
        return ~_truth(inner) if isinstance(node.op, ast.Not) else -inner
    if isinstance(node, ast.BoolOp):
        values = [_truth(_value(v, get)) for v in node.values]
        return numpy.logical_and.reduce(values) if isinstance(node.op, ast.And) else numpy.logical_or.reduce(values)
    if isinstance(node, ast.BinOp):
        return RECKONED[type(node.op)](_value(node.left, get), _value(node.right, get))
    assert isinstance(node, ast.Compare)
    held, left = [], _value(node.left, get)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        held.append(_compared(left, op, comparator, get))
        left = None if isinstance(comparator, ast.List | ast.Tuple | ast.Set) else _value(comparator, get)
    return numpy.logical_and.reduce(held)


def _compared(left: Any, op: ast.cmpop, right: ast.expr, get: Callable[[str], Any]) -> Any:
    if isinstance(op, ast.In | ast.NotIn):
        wanted = [_plain(v.value) for v in getattr(right, "elts", []) if isinstance(v, ast.Constant)]
        found = numpy.logical_or.reduce([_same(left, w) for w in wanted]) if wanted else numpy.zeros(len(left), bool)
        return ~found if isinstance(op, ast.NotIn) else found
    if isinstance(op, ast.Is | ast.IsNot):
        absent = _absent(left)
        return ~absent if isinstance(op, ast.IsNot) else absent
    other = _value(right, get)
    left, other = _dated(left, other)
    if isinstance(op, ast.Eq):
        return _same(left, other)
    if isinstance(op, ast.NotEq):
        return ~_same(left, other) & ~_absent(left)
    return COMPARED[type(op)](left, other)


def _dated(left: Any, right: Any) -> tuple[Any, Any]:
    """A date in quotes beside a column of numbers, as what the column counts (days, or microseconds)."""
    if isinstance(right, str) and getattr(left, "dtype", None) is not None and left.dtype.kind == "f":
        try:
            when = datetime.datetime.fromisoformat(right)
        except ValueError as e:
            raise WrongQuestion(f"{right!r} is compared with a number, and is no date as 2024-01-31.") from e
        when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
        since_s = (when - EPOCH).total_seconds()
        known = numpy.abs(left[~numpy.isnan(left)])
        micro = bool(len(known)) and float(known.max()) > 1e8
        return left, since_s * 1e6 if micro else since_s / 86_400
    return left, right


def _same(left: Any, right: Any) -> Any:
    left, right = _dated(left, right)
    return numpy.equal(left, right)


def _absent(values: Any) -> Any:
    values = numpy.asarray(values)
    return numpy.isnan(values) if values.dtype.kind == "f" else numpy.equal(values, None)


def _truth(values: Any) -> Any:
    values = numpy.asarray(values)
    return values if values.dtype == bool else (values == 1)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, bool | int | float) else value
