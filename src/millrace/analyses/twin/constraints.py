"""What holds on every real row and must hold on every twin: found, declared, and kept while twins are drawn.

A constraint is a plain mapping with `kind` and `said` (how people read it):

    order     low <= high, two columns of numbers
    sum       column is constant + the sum of factor times column: it is not drawn but follows
    range     column from low to high
    together  two categories, and the pairs of their codes that occur
    allowed   a category, and the levels it may have
    rule      any text that `where` reads
    key       column has one value a row: twins get their own

Ranges, levels and types hold by themselves, since twins are drawn from what the data have.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from millrace.analyses.twin import where
from millrace.analyses.twin.columns import Column
from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.analyses.twin.joint import Field

LEAST_BROKEN = 10.0
"""So many rows would break an order if its columns had nothing to do with each other, or it is chance (or trivial)."""
LEAST_TOGETHER = 10.0
"""As many rows of a pair would be expected that never occurs."""
MOST_TERMS = 6
CLOSE = 1e-9
FACTORS = (1.0, -1.0)


class Rules:
    """The constraints of a model at work."""

    def __init__(self, given: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        self.given, self.columns = tuple(given), tuple(columns)
        at = {c.name: j for j, c in enumerate(columns)}
        self.at = at
        self.orders = [(at[c["low"]], at[c["high"]]) for c in given if c["kind"] == "order"]
        self.sums = [c for c in given if c["kind"] == "sum"]
        self.ranges = [(at[c["column"]], c["low"], c["high"]) for c in given if c["kind"] == "range"]
        self.together: dict[int, list[tuple[int, Any]]] = {}
        for c in given:
            if c["kind"] == "together":
                a, b = (at[n] for n in c["columns"])
                table = numpy.zeros((256, 256), numpy.bool_)
                pairs = numpy.asarray(c["pairs"])
                table[: pairs.shape[0], : pairs.shape[1]] = pairs
                self.together.setdefault(b, []).append((a, table))
                self.together.setdefault(a, []).append((b, numpy.ascontiguousarray(table.T)))
        self.clauses = [
            clause for c in given if c["kind"] == "rule" for clause in where.clauses(c["said"], columns, "constraint")
        ]

    def touches(self, j: int) -> bool:
        """Values of the column are shaped while they are drawn."""
        return j in self.together or any(j in pair for pair in self.orders)

    def bounds(self, j: int, earlier: Sequence[int], field: Field) -> tuple[Any, Any]:
        """Bounds of a column by those drawn before it; None where there are none."""
        low = high = None
        for a, b in self.orders:
            if j == b and a in earlier:
                known = numpy.where(numpy.isnan(field.V[a]), -numpy.inf, field.V[a])
                low = known if low is None else numpy.maximum(low, known)
            elif j == a and b in earlier:
                known = numpy.where(numpy.isnan(field.V[b]), numpy.inf, field.V[b])
                high = known if high is None else numpy.minimum(high, known)
        return low, high

    def partners(self, j: int, earlier: Sequence[int]) -> tuple[Any, Any]:
        """(columns drawn before, bool (columns, 256, 256): which codes go with each of theirs)."""
        found = [(a, table) for a, table in self.together.get(j, ()) if a in earlier]
        if not found:
            return numpy.zeros(0, numpy.int64), numpy.ones((0, 256, 256), numpy.bool_)
        return numpy.array([a for a, _ in found], numpy.int64), numpy.stack([table for _, table in found])

    def follow(self, field: Field, columns: Sequence[Column]) -> None:
        """Columns that are sums of others."""
        for c in self.sums:
            field.V[self.at[c["column"]]] = summed(c, lambda name: field.V[self.at[name]])

    def hold(self, field: Field, get: Callable[[str], Any]) -> Any:
        """bool (rows,): all constraints hold."""
        good = numpy.ones(len(field.rows), numpy.bool_)
        for _, broken in self.broken(field.V, field.C, get):
            good &= ~broken
        return good

    def broken(self, V: Any, C: Any, get: Callable[[str], Any]) -> list[tuple[Mapping[str, Any], Any]]:
        """Each constraint with the rows that break it. Sums of drawn values hold by how they are made, and are checked too."""
        found = []
        for c in self.given:
            if c["kind"] == "order":
                found.append((c, V[self.at[c["low"]]] > V[self.at[c["high"]]]))
            elif c["kind"] == "range":
                v = V[self.at[c["column"]]]
                found.append((c, (v < c["low"]) | (v > c["high"])))
            elif c["kind"] == "sum":
                v, w = V[self.at[c["column"]]], summed(c, lambda name: V[self.at[name]])
                found.append((c, numpy.abs(v - w) > CLOSE * numpy.maximum(1.0, numpy.abs(w))))
            elif c["kind"] == "together":
                a, b = (self.at[n] for n in c["columns"])
                table = next(t for q, t in self.together[b] if q == a)
                found.append((c, ~table[C[a], C[b]]))
            elif c["kind"] == "rule":
                for clause in where.clauses(c["said"], self.columns, "constraint"):
                    absent = numpy.zeros(V.shape[1], bool)
                    for name in clause.names:
                        absent |= numpy.equal(get(name), None) if get(name).dtype == object else numpy.isnan(get(name))
                    found.append((c, ~clause.holds(get) & ~absent))
        return found


def summed(c: Mapping[str, Any], get: Callable[[str], Any]) -> Any:
    """The value of a column that is a sum."""
    total = 0.0
    for name, factor in c["of"]:
        total = total + factor * get(name)
    return total + c["constant"]


# -- declared --------------------------------------------------------------------------------------------------------
def declared(texts: Sequence[str], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Constraints that were written: an order or a sum where it is one, else a rule."""
    found = []
    known = {c.name: c for c in columns}
    for text in texts:
        for clause in where.clauses(text, columns, "constraint"):
            found.append(_order(clause, known) or _sum(clause, known) or {"kind": "rule", "said": clause.text})
    return found


def _order(clause: where.Clause, known: Mapping[str, Column]) -> dict[str, Any] | None:
    t = clause.tree
    if not isinstance(t, ast.Compare) or len(t.ops) != 1 or not isinstance(t.left, ast.Name):
        return None
    right = t.comparators[0]
    if not isinstance(right, ast.Name) or not (known[t.left.id].numeric and known[right.id].numeric):
        return None
    if isinstance(t.ops[0], ast.LtE):
        return order_of(t.left.id, right.id)
    return order_of(right.id, t.left.id) if isinstance(t.ops[0], ast.GtE) else None


def order_of(low: str, high: str) -> dict[str, Any]:
    return {"kind": "order", "low": low, "high": high, "said": f"{low} <= {high}"}


def _sum(clause: where.Clause, known: Mapping[str, Column]) -> dict[str, Any] | None:
    t = clause.tree
    if (
        not isinstance(t, ast.Compare)
        or len(t.ops) != 1
        or not isinstance(t.ops[0], ast.Eq)
        or not isinstance(t.left, ast.Name)
    ):
        return None
    terms = _terms(t.comparators[0], 1.0)
    if terms is None or t.left.id in {name for name, _ in terms[0]} or not known[t.left.id].numeric:
        return None
    return sum_of(t.left.id, terms[0], terms[1])


def _terms(node: ast.expr, factor: float) -> tuple[list[tuple[str, float]], float] | None:
    """([(column, factor), ...], constant) of a sum."""
    if isinstance(node, ast.Name):
        return [(node.id, factor)], 0.0
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return [], factor * node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _terms(node.operand, -factor)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        left = _terms(node.left, factor)
        right = _terms(node.right, factor if isinstance(node.op, ast.Add) else -factor)
        return None if left is None or right is None else (left[0] + right[0], left[1] + right[1])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for a, b in ((node.left, node.right), (node.right, node.left)):
            if isinstance(a, ast.Constant) and isinstance(a.value, int | float):
                return _terms(b, factor * a.value)
    return None


def sum_of(column: str, of: Sequence[tuple[str, float]], constant: float = 0.0) -> dict[str, Any]:
    said = ""
    for name, factor in of:
        size = abs(factor)
        term = name if size == 1 else f"{size:g} * {name}"
        said += f"{' - ' if factor < 0 else ' + '}{term}" if said else f"{'-' if factor < 0 else ''}{term}"
    if constant:
        said += f"{' - ' if constant < 0 else ' + '}{abs(constant):g}"
    return {
        "kind": "sum", "column": column, "of": [[n, float(f)] for n, f in of], "constant": float(constant),
        "said": f"{column} == {said}",
    }  # fmt: skip


# -- found -----------------------------------------------------------------------------------------------------------
def candidate_orders(sample: Mapping[str, Any], rows: int) -> list[tuple[str, str]]:
    """Pairs (low, high) that hold on all sampled rows, and would not by chance."""
    names, found = list(sample), []
    for a, b in itertools.permutations(names, 2):
        x, y = sample[a], sample[b]
        known = ~(numpy.isnan(x) | numpy.isnan(y))
        if known.sum() < 50 or (x[known] > y[known]).any():
            continue
        p = float(numpy.searchsorted(numpy.sort(y[known]), x[known], "left").mean()) / known.sum()
        if p * rows >= LEAST_BROKEN and p * known.sum() >= LEAST_BROKEN and (x[known] < y[known]).any():
            found.append((a, b))
    holds = set(found)
    return [(a, c) for a, c in found if not any((a, b) in holds and (b, c) in holds for b in names)]


def candidate_sums(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns that are sums and differences of others on all sampled rows (a greedy regression with factors of one)."""
    names = list(sample)
    if len(names) < 2:
        return []
    S = numpy.stack([sample[n] for n in names], 1)
    S = S[~numpy.isnan(S).any(1)]
    if len(S) < 50:
        return []
    found: list[dict[str, Any]] = []
    free = [k for k in range(len(names)) if S[:, k].std() > 0]
    taken: set[int] = set()
    for k in sorted(free, key=lambda k: -float(numpy.abs(S[:, k]).mean())):
        others = [q for q in free if q != k and q not in taken]
        terms = _pursued(S, k, others)
        if terms is None:
            continue
        constant = float(numpy.median(S[:, k] - sum(f * S[:, q] for q, f in terms)))
        if abs(constant) < CLOSE * max(1.0, float(numpy.abs(S[:, k]).max())):
            constant = 0.0
        found.append(sum_of(names[k], [(names[q], f) for q, f in terms], constant))
        taken.add(k)
    return found


def _pursued(S: Any, k: int, others: Sequence[int]) -> list[tuple[int, float]] | None:
    """Orthogonal matching pursuit, whose factors must come out as one or minus one."""
    chosen: list[int] = []
    y = S[:, k] - S[:, k].mean()
    scale = float(numpy.abs(y).max())
    rest = y
    for _ in range(min(MOST_TERMS, len(others))):
        X = S[:, others] - S[:, others].mean(0)
        norm = numpy.sqrt((X**2).sum(0))
        gain = numpy.abs(rest @ X) / numpy.where(norm > 0, norm, numpy.inf)
        gain[[others.index(q) for q in chosen]] = -1
        chosen.append(others[int(numpy.argmax(gain))])
        A = S[:, chosen] - S[:, chosen].mean(0)
        factors, *_ = numpy.linalg.lstsq(A, y, rcond=None)
        rest = y - A @ factors
        if float(numpy.abs(rest).max()) < 1e-7 * scale:
            rounded = numpy.round(factors)
            exact = bool((numpy.abs(factors - rounded) < 1e-6).all() and (numpy.abs(rounded) == 1).all())
            return [(q, float(f)) for q, f in zip(chosen, rounded, strict=True)] if exact else None
    return None


def candidate_pairs(X: Any, columns: Sequence[Column], n: int) -> list[dict[str, Any]]:
    """Pairs of categories some of whose combinations would be expected and never occur, with the pairs that do. X: uint8
    (columns, n) codes of all rows."""
    found = []
    kinds = [j for j, c in enumerate(columns) if c.kind in ("category", "boolean") and 1 < c.all_codes <= 64]
    for a, b in itertools.combinations(kinds, 2):
        A, B = columns[a].all_codes, columns[b].all_codes
        table = numpy.bincount(X[a].astype(numpy.int64) * B + X[b], minlength=A * B).reshape(A, B)
        expected = numpy.outer(table.sum(1), table.sum(0)) / max(1, n)
        never = (table == 0) & (expected >= LEAST_TOGETHER)
        if never.any():
            names = [columns[a].name, columns[b].name]
            found.append({
                "kind": "together", "columns": names, "pairs": table > 0,
                "said": f"{names[0]} with {names[1]} as they occur together ({int((table > 0).sum())} of {A * B} pairs)",
            })  # fmt: skip
    return found


# -- checked on data -------------------------------------------------------------------------------------------------
def holds_on(c: Mapping[str, Any], get: Callable[[str], Any]) -> Any:
    """bool by row: an order or a sum breaks there. `get(name)`: float64 values of all real rows."""
    if c["kind"] == "order":
        return get(c["low"]) > get(c["high"])
    v, w = get(c["column"]), summed(c, get)
    with numpy.errstate(invalid="ignore"):
        far = numpy.abs(v - w) > CLOSE * numpy.maximum(1.0, numpy.abs(w))
    return far | (numpy.isnan(v) != numpy.isnan(w))


def refuse_broken(c: Mapping[str, Any], rows: Any, shown: Callable[[int], str]) -> None:
    """An error that shows the first ten rows that break what was declared."""
    at = numpy.flatnonzero(rows)
    if len(at):
        first = "; ".join(shown(int(i)) for i in at[:10])
        raise WrongQuestion(
            f"The data break {c['said']!r} in {len(at):,} rows (from 0): {first}. Mend them, or leave the constraint out."
        )
