"""The joint distribution at work: rows drawn column by column, conditions and constraints kept.

A row's numbers depend on (seed, row, attempt) alone. What a condition rules out is drawn again, all of the row, with the next
attempt; where the column that it is about has few codes, its codes are drawn among those that remain, and the attempt is
accepted by how much of the leaf remained, over the most that remains in any leaf: the same law with fewer attempts.

Constraints shape a value while it is drawn (bounds by columns drawn before, codes that go together), and are checked on the
finished row: a row that breaks one is drawn again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy

from millrace.analyses.twin import constraints as constraining
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.describing import codes_of_ranks
from millrace.analyses.twin.kernels import dependence, drawing, judging
from millrace.analyses.twin.where import Clause
from millrace.run.errors import AnalysisFailed, WrongQuestion

ALL = numpy.ones(256, numpy.bool_)
NO_PARTNERS = numpy.zeros(0, numpy.int64)
NO_TABLES = numpy.ones((0, 256, 256), numpy.bool_)
AT_ONCE = 65_536
"""Attempts drawn together at most, so that memory is bounded and small remainders are not drawn one by one."""
JUDGED_AT_ONCE = 4_096
"""The same where a judge accepts a third of them: below this a round costs its calls, and not its rows."""
MOST_REPAIRS = 1_000
"""Attempts of a row without a condition until all constraints hold."""
ACCEPTING, JUDGING, MEMBERS = 1_000_003, 1_000_013, 1_000_033
"""Places of random numbers that are not a column's."""


class Ready:
    """Columns with what kernels need of each, made once."""

    def __init__(self, columns: Sequence[Column], tables: Sequence[Any]) -> None:
        self.columns, self.tables = tuple(columns), tables
        self._codes: dict[int, Any] = {}
        self._scores: dict[int, Any] = {}

    def codes(self, j: int) -> Any:
        """uint8 by rank."""
        if j not in self._codes:
            self._codes[j] = codes_of_ranks(self.columns[j])
        return self._codes[j]

    def scores(self, j: int) -> Any:
        """float32 by rank or code."""
        if j not in self._scores:
            given = self.tables[j]
            self._scores[j] = dependence.score_table(self.columns[j], None) if given is None else numpy.asarray(given)
        return self._scores[j]


@dataclass
class Field:
    """Attempts being drawn: C uint8, R uint16 (columns + 1, m), V float64 (columns, m), rows and attempts int64 (m,), share: how
    much of each condition remained, ok: still possible; scores: of columns that an index has read."""

    C: Any
    R: Any
    V: Any
    rows: Any
    attempts: Any
    share: Any
    ok: Any
    scores: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: int, rows: Any, attempts: Any) -> Field:
        m = len(rows)
        C, R = numpy.zeros((columns + 1, m), numpy.uint8), numpy.zeros((columns + 1, m), numpy.uint16)
        V = numpy.full((columns, m), numpy.nan)
        return cls(C, R, V, rows, attempts, numpy.ones(m), numpy.ones(m, numpy.bool_))

    def take(self, at: Any) -> Field:
        return Field(*(getattr(self, n)[..., at] for n in ("C", "R", "V", "rows", "attempts", "share", "ok")))


def draw_place(
    part: Mapping[str, Any], ready: Ready, earlier: Sequence[int], place: int, field: Field, seed: int, *, low: Any = None,
    high: Any = None, allowed: Any = ALL, partners: Any = NO_PARTNERS, together: Any = NO_TABLES,
) -> None:  # fmt: skip
    """One column of all attempts."""
    j, m, d = part["column"], len(field.rows), len(ready.columns)
    column, f = ready.columns[j], field
    low = numpy.full(m, -numpy.inf) if low is None else low
    high = numpy.full(m, numpy.inf) if high is None else high
    if part["indexed"]:

        def get(q: int) -> Any:
            if q not in f.scores:
                f.scores[q] = ready.scores(q)[f.R[q] if ready.columns[q].ranked else f.C[q]]
            return f.scores[q]

        index = dependence.index_of(get, earlier, part["beta"], m)
        drawing.place_index(index, part["grid"], f.C[d], f.R[d])
    leaf = drawing.leaves_of(f.C, part["walk"], part["masks"])
    if not column.ranked:
        drawing.draw_codes(
            f.C, j, f.V, f.rows, f.attempts, seed, place, leaf, part["start"], part["codes"], part["cumulative"],
            values_of(column), low, high, allowed, partners, together, f.share, f.ok,
        )  # fmt: skip
        return
    drawing.draw_ranks(
        f.C, f.R, j, f.V, f.rows, f.attempts, seed, place, leaf, part["start"], part["fixed"], part["plane"], part["slope"],
        part["unit"], part["low"], part["high"], part["held"], part["lines"], column.values, ready.codes(j), column.spike,
        column.common, column.codes, column.scale, low, high, f.ok,
    )  # fmt: skip


def values_of(column: Column) -> Any:
    """float64 (256,): the value of each code; NaN for missing and for categories."""
    values = numpy.full(256, numpy.nan)
    if not column.nominal:
        values[: len(column.values)] = column.values
    return values


@dataclass(frozen=True)
class Condition:
    """clauses: all must hold. allowed: by column, the codes that clauses about it alone leave. most: by column, the largest part
    of a leaf that they leave. rest: the other clauses. last: place of the last column that any clause is about."""

    clauses: tuple[Clause, ...] = ()
    allowed: Mapping[int, Any] = field(default_factory=dict)
    most: Mapping[int, float] = field(default_factory=dict)
    rest: tuple[Clause, ...] = ()
    last: int = -1


class Joint:
    """A model's joint distribution, ready to draw."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        from millrace.analyses.twin.parts import column_of, read_only

        self.columns = tuple(column_of(c) for c in plain["columns"])
        self.at = {c.name: j for j, c in enumerate(self.columns)}
        self.order = [int(j) for j in plain["order"]]
        self.parts = [
            {
                k: read_only(numpy.asarray(v)) if hasattr(v, "dtype") and getattr(v, "ndim", 0) else v
                for k, v in p.items()
            }
            for p in plain["parts"]
        ]
        self.ready = Ready(self.columns, plain["scores"])
        self.rules = constraining.Rules(plain["constraints"], self.columns)
        self.judge = judging.ready(plain["judge"], self.order) if plain["judge"] else None

    # -- conditions --------------------------------------------------------------------------------------------------
    def condition(self, clauses: Sequence[Clause]) -> Condition:
        """What clauses mean for each column. `WrongQuestion` when one of them can never hold."""
        allowed: dict[int, Any] = {}
        most: dict[int, float] = {}
        rest, last = [], -1
        place_of = {j: p for p, j in enumerate(self.order)}
        for clause in clauses:
            about = [self.at[n] for n in clause.names]
            last = max([last, *(place_of.get(j, len(self.order) - 1) for j in about)])
            j = about[0]
            column = self.columns[j]
            if len(about) == 1:
                held = clause.holds(lambda _: self._possible(column))  # noqa: B023 - called at once
                if not held.any():
                    raise WrongQuestion(f"No twin can satisfy {clause.text!r}: {_has(column)}.")
                if column.drawn and not column.ranked and not column.pooled:
                    mask = numpy.zeros(256, numpy.bool_)
                    mask[: len(held)] = held
                    allowed[j] = allowed.get(j, ALL) & mask
                    if not allowed[j].any():
                        raise WrongQuestion(
                            f"No twin can satisfy all that is asked of {column.name!r}: {_has(column)}."
                        )
                    continue
            rest.append(clause)
        for j, mask in allowed.items():
            most[j] = 1.0 if self.rules.touches(j) else _most_left(self.parts[place_of[j]], mask)
            if most[j] == 0.0:
                raise WrongQuestion(
                    f"No twin can satisfy what is asked of {self.columns[j].name!r}: {_has(self.columns[j])}."
                )
        return Condition(tuple(clauses), allowed, most, tuple(rest), last)

    def _possible(self, column: Column) -> Any:
        """Every value of a column: by code when it has no ranks."""
        if column.kind == "category":
            return numpy.array(
                [*column.labels, *([None] * column.missing), *(label for label, _ in column.pooled)], object
            )
        if column.ranked:
            return numpy.concatenate(
                [column.values, (column.values[1:] + column.values[:-1]) / 2, [numpy.nan] * column.missing]
            )
        if column.kind == "constant" and column.labels:
            return numpy.array(column.labels, object)
        if column.kind in ("key", "sum"):
            raise WrongQuestion(
                f"{column.name!r} follows from other things (it is a {column.kind}): no condition can be on it."
            )
        return numpy.concatenate([column.values, [numpy.nan] * column.missing])

    # -- drawing -----------------------------------------------------------------------------------------------------
    def draw(self, rows: Any, seed: int, condition: Condition | None = None, attempts: int = MOST_REPAIRS) -> Field:
        """The twins of these row numbers. `field.attempts`: which attempt each one is (from 0).

        `AnalysisFailed` when a row has not been accepted after so many attempts.
        """
        d, m = len(self.columns), len(rows)
        rows = numpy.asarray(rows, numpy.int64)
        conditioned = condition is not None and bool(condition.clauses)
        done = Field.of(d, rows, numpy.zeros(m, numpy.int64))
        pending, begun = numpy.arange(m), numpy.zeros(m, numpy.int64)
        while len(pending):
            each = self._each(len(pending), conditioned)
            for begin in range(0, len(pending), AT_ONCE):
                some = pending[begin : begin + AT_ONCE]
                which = numpy.repeat(some, each)
                tried = begun[which] + numpy.tile(numpy.arange(each), len(some))
                found, origin = self._attempt(Field.of(d, rows[which], tried), which, seed, condition)
                first = numpy.unique(origin, return_index=True)  # attempts of a row are in their order
                for n in ("C", "R", "V", "attempts"):
                    getattr(done, n)[..., first[0]] = getattr(found, n)[..., first[1]]
                begun[some] += each
                begun[first[0]] = -1
            pending = pending[begun[pending] >= 0]
            if len(pending) and begun[pending].min() >= attempts:
                share = (m - len(pending)) / max(1, m)
                what = (
                    " and ".join(c.text for c in condition.clauses)
                    if condition is not None and conditioned
                    else "the constraints"
                )
                raise AnalysisFailed(
                    f"{len(pending):,} of {m:,} twins did not satisfy {what} in {attempts:,} draws each ({share:.2%} did): ask "
                    "for less, or allow more attempts."
                )
        return done

    def _each(self, pending: int, conditioned: bool) -> int:
        """Attempts of a row that are drawn at once: the first that is accepted counts, so that it changes nothing but time."""
        if conditioned:
            return max(1, min(AT_ONCE // pending, 256))
        return max(1, min(JUDGED_AT_ONCE // pending, 8)) if self.judge else 1

    def _attempt(self, field: Field, origin: Any, seed: int, condition: Condition | None) -> tuple[Field, Any]:
        """Those attempts that are accepted, and what row each belongs to."""
        last = -1 if condition is None else condition.last
        for place in range(len(self.parts)):
            self._place(place, field, seed, condition)
            if place == last:
                self.rules.follow(field, self.columns)
                field, origin = self._kept(field, origin, self._accepted(field, seed, condition))
            elif not field.ok.all():
                field, origin = self._kept(field, origin, field.ok)
            if not len(origin):
                return field, origin
        self.rules.follow(field, self.columns)
        field, origin = self._kept(field, origin, field.ok & self.rules.hold(field, self.get(field, seed)))
        if self.judge is None or not len(origin):
            return field, origin
        chance = judging.share(field.C, self.judge)
        return self._kept(field, origin, units(seed, field.rows, JUDGING, field.attempts) < chance)

    @staticmethod
    def _kept(field: Field, origin: Any, good: Any) -> tuple[Field, Any]:
        return (field, origin) if good.all() else (field.take(numpy.flatnonzero(good)), origin[good])

    def _place(self, place: int, field: Field, seed: int, condition: Condition | None) -> None:
        j = self.order[place]
        earlier = self.order[:place]
        low, high = self.rules.bounds(j, earlier, field)
        partners, together = self.rules.partners(j, earlier)
        allowed = ALL if condition is None or not condition.allowed else condition.allowed.get(j, ALL)
        draw_place(
            self.parts[place], self.ready, earlier, place, field, seed, low=low, high=high, allowed=allowed, partners=partners,
            together=together,
        )  # fmt: skip

    def _accepted(self, field: Field, seed: int, condition: Condition | None) -> Any:
        assert condition is not None
        good = field.ok.copy()
        envelope = float(numpy.prod(list(condition.most.values()))) if condition.most else 1.0
        if condition.allowed:
            good &= units(seed, field.rows, ACCEPTING, field.attempts) * envelope < field.share
        get = self.get(field, seed)
        for clause in condition.rest:
            good &= clause.holds(get)
        return good

    # -- values ------------------------------------------------------------------------------------------------------
    def get(self, field: Field, seed: int) -> Callable[[str], Any]:
        """A column's values as conditions and rules see them."""

        def values(name: str) -> Any:
            j = self.at[name]
            column = self.columns[j]
            if column.kind == "category":
                return self.texts(j, field, seed)
            if column.kind == "constant":
                one = column.labels[0] if column.labels else float(column.values[0])
                return numpy.full(len(field.rows), one, object if column.labels else float)
            return field.V[j]

        return values

    def texts(self, j: int, field: Field, seed: int) -> Any:
        """object (rows,): labels, None for missing; members of a pool drawn by their shares."""
        column = self.columns[j]
        labels = numpy.array([*column.labels, None], object)
        found = labels[field.C[j]]
        if column.pooled:
            at = numpy.flatnonzero(field.C[j] == column.codes - 1)
            found[at] = self._members(j, field.rows[at], field.attempts[at], seed)
        return found

    def _members(self, j: int, rows: Any, attempts: Any, seed: int) -> Any:
        pooled = self.columns[j].pooled
        cumulative = numpy.cumsum([share for _, share in pooled])
        u = units(seed, rows, MEMBERS + j, attempts)
        return numpy.array([label for label, _ in pooled], object)[
            numpy.minimum(numpy.searchsorted(cumulative, u * cumulative[-1], "right"), len(pooled) - 1)
        ]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)


def units(seed: int, rows: Any, place: int, attempts: Any) -> Any:
    """float64 (rows,) in [0, 1)."""
    return drawing.units(seed, numpy.asarray(rows, numpy.int64), place, numpy.asarray(attempts, numpy.int64))


def _most_left(part: Mapping[str, Any], mask: Any) -> float:
    """The largest part of a leaf that the allowed codes are."""
    most = 0.0
    for a, b in itertools.pairwise(part["start"]):
        if b > a:
            counts = numpy.diff(part["cumulative"][a:b], prepend=0)
            most = max(most, float(counts[mask[part["codes"][a:b]]].sum() / counts.sum()))
    return most


def _has(column: Column) -> str:
    return f"the values of {column.name!r} are {column.values_text(12)}"
