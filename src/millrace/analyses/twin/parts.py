"""The tasks of fit: a column described and coded, dependence, and one part of the joint distribution, a column at a time.

Pure functions that workers have preloaded. Rows arrive as one mapped copy per host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy

from millrace.analyses.twin import describing
from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.kernels import choosing, dependence, drawing, judging, leaves, trees

SAMPLE = 4_000
DEPTH = 40
Z = 2.0
LINES = 5
LEAST_R2 = 0.3
AT_ONCE = 8_192
JUDGED = 1 << 40
"""Where the twins begin that the judge is learnt from: nobody else asks for these."""
Frame = Mapping[str, Any]


def plain_column(column: Column) -> dict[str, Any]:
    return {f.name: getattr(column, f.name) for f in fields(column)}


def column_of(plain: Mapping[str, Any]) -> Column:
    def tupled(value: Any) -> Any:
        return tuple(tupled(v) for v in value) if isinstance(value, list) else value

    return Column(**{name: tupled(value) for name, value in plain.items()})


def describe(table: Any, declared: Mapping[str, Any], privacy: str) -> dict[str, Any]:
    """One column of data (an Arrow table of one): what it is, its codes and ranks, and some of its values (NaN for text)."""
    name = table.column_names[0]
    data = table.column(0)
    column = describing.describe(name, data, declared.get(name, {}), privacy)
    made: dict[str, Any] = {"column": plain_column(column)}
    if column.drawn:
        codes, ranks = describing.encode(column, data)
        made["codes"] = codes
        if ranks is not None:
            made["ranks"] = ranks
    if not describing.is_text(data):
        values, _, _ = describing.numbers_of(data, name)
        made["sample"] = values[dependence.some_rows(len(values), SAMPLE)]
    return made


def relations(_: Any, frame: Frame, last: Sequence[int]) -> dict[str, Any]:
    """Dependence, the order of drawing, correlations of scores, and score tables: `tables` of columns without ranks, which a
    model keeps, `scores` of all."""
    columns = [column_of(c) for c in frame["columns"]]
    D = dependence.dependence(frame["codes"], columns)
    order = dependence.ordered(D, [j for j, c in enumerate(columns) if c.drawn], last)
    tables, S = dependence.scores(frame["codes"], frame["ranks"], frame["rank_row"], columns)
    every = [dependence.score_table(c, None) if c.ranked and c.drawn else tables[j] for j, c in enumerate(columns)]
    return {"dependence": D, "order": order, "tables": tables, "scores": every, "correlations": S}


def part(place: int, frame: Frame, related: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the joint distribution at a place of the order: trees, leaves and, when it is better, the index."""
    columns = [column_of(c) for c in frame["columns"]]
    if place == 0 or asked["joint"] == "plain":
        return _part(place, frame, related, columns, asked, False, None)
    if asked["joint"] == "index":
        return _part(place, frame, related, columns, asked, True, None)
    wanted = choosing.prefers_index(place, frame, related, columns, asked, _part)
    return _part(place, frame, related, columns, asked, wanted, None)


def _part(
    place: int, frame: Frame, related: Mapping[str, Any], columns: Sequence[Column], asked: Mapping[str, Any], indexed: bool,
    rows: Any,
) -> dict[str, Any]:  # fmt: skip
    """rows: int32, those it is learnt from; all when None."""
    order, X, R, rank_row = related["order"], frame["codes"], frame["ranks"], frame["rank_row"]
    j, earlier = order[place], list(order[:place])
    column, n, d = columns[j], X.shape[1], len(columns)
    made: dict[str, Any] = {"column": j, "indexed": indexed}
    extra, extra_ranks = numpy.zeros(1 if not indexed else n, numpy.uint8), None
    if indexed:
        beta = dependence.weights(related["correlations"], j, earlier)
        get = reader(columns, related["scores"], X, R, rank_row)
        index = dependence.index_of(get, earlier, beta, n)
        grid = dependence.grid_of(index if rows is None else index[rows])
        extra_ranks = numpy.zeros(n, numpy.uint16)
        drawing.place_index(index, grid, extra, extra_ranks)
        made |= {"beta": beta, "grid": grid}
    ordered = not column.nominal and column.all_codes > trees.CLASSES
    if ordered:
        y, width = read_only(X[j]), trees.CLASSES
    else:
        table, width = trees.coarse(X[j] if rows is None else X[j, rows], column.all_codes, column.nominal)
        y = read_only(table[X[j]])
    features = numpy.array(sorted(earlier) + [d] * indexed, numpy.int64)
    sizes = numpy.array([max(1, c.all_codes) for c in columns] + [250], numpy.int64)
    nominal = numpy.array([c.nominal for c in columns] + [False])
    at = numpy.arange(n, dtype=numpy.int32) if rows is None else rows.astype(numpy.int32).copy()
    extra.setflags(write=False)
    grown = trees.grow(
        read_only(frame["by_row"]), extra, sizes, nominal, features, y, width, ordered, at, asked["min_leaf"], Z,
        DEPTH if len(features) else 0,
    )  # fmt: skip
    feature, threshold, left, begin, end, masks = grown
    walk, leaf = leaves.walk_of(feature, threshold, left)
    made |= {"walk": walk, "masks": masks}
    if not column.ranked:
        found = leaves.leaves_of_codes(leaf, begin, end, at, read_only(X[j]))
        return made | dict(zip(("start", "codes", "cumulative"), found, strict=True))
    lines = sorted((q for q in earlier if columns[q].ranked), key=lambda q: -related["dependence"][j, q])[:LINES]
    ranked = [R[rank_row[q]] for q in lines] + [extra_ranks] * indexed
    spikes = [_spikes(columns[q]) for q in lines] + [numpy.zeros(65_536, numpy.bool_)] * indexed
    C = numpy.stack(ranked) if ranked else numpy.zeros((0, 1), numpy.uint16)
    Q = numpy.stack(spikes) if spikes else numpy.zeros((0, 65_536), numpy.bool_)
    found = leaves.leaves_of_ranks(
        leaf, begin, end, at, read_only(R[rank_row[j]]), C, len(ranked), Q, _spikes(column), LEAST_R2
    )
    made |= dict(zip(("start", "fixed", "plane", "low", "high", "slope", "unit", "held"), found, strict=True))
    made["lines"] = numpy.array([*lines, *([d] * indexed)], numpy.int64)
    return made


def judge(_: Any, frame: Frame, plain: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What tells twins of the joint distribution `plain` from the real rows; empty where they are hardly told apart."""
    from millrace.analyses.twin.joint import Joint

    joint, n = Joint(plain), frame["codes"].shape[1]
    if n < judging.LEAST_ROWS:
        return {}
    rows = numpy.arange(JUDGED, JUDGED + min(judging.TIMES * n, judging.MOST_ROWS))
    some = [joint.draw(rows[at : at + AT_ONCE], seed).C[joint.order] for at in range(0, len(rows), AT_ONCE)]
    made = numpy.concatenate(some, 1)
    nominal = numpy.array([joint.columns[j].nominal for j in joint.order])
    return judging.learn(frame["codes"][joint.order], made, nominal) or {}


def reader(columns: Sequence[Column], tables: Sequence[Any], X: Any, R: Any, rank_row: Sequence[int]) -> Any:
    """`get(j)`: the scores of column j, float32 (rows,)."""

    def get(j: int) -> Any:
        return numpy.asarray(tables[j])[R[rank_row[j]] if columns[j].ranked else X[j]]

    return get


def _spikes(column: Column) -> Any:
    """bool (65536,), by rank."""
    found = numpy.zeros(65_536, numpy.bool_)
    found[: len(column.spike)] = column.spike
    return found


def read_only(array: Any) -> Any:
    """The array as kernels always get shared ones, so that they are compiled once."""
    view = array.view()
    view.setflags(write=False)
    return view
