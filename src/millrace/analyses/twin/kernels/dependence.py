"""How much columns tell of each other, the order in which they are drawn, and the index of all earlier ones.

Dependence is mutual information of coarse codes over the smaller entropy. The order is a maximum spanning tree of it, walked
from the column that depends most (Prim). The index of a column is a ridge regression of its normal scores on those of all
earlier ones; categories get scores by what numbers go with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

from millrace.analyses.twin.columns import Column
from millrace.analyses.twin.kernels.trees import coarse

ROWS = 50_000
RIDGE = 1e-4
GRID = 4_096
SHRINK = 10.0


def some_rows(n: int, most: int = ROWS) -> NDArray[numpy.int64]:
    """Evenly spaced rows, `most` of them at most."""
    return numpy.arange(n) if n <= most else (numpy.arange(most) * n) // most


@njit(nogil=True, cache=True)
def _tables(Y, sizes):  # type: ignore[no-untyped-def]
    """Mutual information in nats of all pairs of rows of Y (columns, rows), entropies on the diagonal."""
    d, n = Y.shape
    M = numpy.zeros((d, d))
    T = numpy.zeros((16, 16), numpy.int64)
    for a in range(d):
        for b in range(a + 1):
            T[:] = 0
            for i in range(n):
                T[Y[a, i], Y[b, i]] += 1
            s = 0.0
            for u in range(sizes[a]):
                ru = 0
                for v in range(sizes[b]):
                    ru += T[u, v]
                for v in range(sizes[b]):
                    if T[u, v]:
                        cv = 0
                        for w in range(sizes[a]):
                            cv += T[w, v]
                        s += T[u, v] / n * numpy.log(T[u, v] * float(n) / (float(ru) * cv))
            M[a, b] = M[b, a] = s
    return M


def dependence(X: NDArray[numpy.uint8], columns: Sequence[Column]) -> NDArray[numpy.float64]:
    """(columns, columns): 0 when they tell nothing of each other beyond chance, 1 when all; 0 for what is not drawn."""
    rows = some_rows(X.shape[1])
    Y, sizes = numpy.zeros((len(columns), len(rows)), numpy.uint8), numpy.ones(len(columns), numpy.int64)
    for j, column in enumerate(columns):
        if column.drawn:
            table, sizes[j] = coarse(X[j, rows], column.all_codes, column.nominal)
            Y[j] = table[X[j, rows]]
    M = _tables(Y, sizes)
    chance = numpy.outer(sizes - 1, sizes - 1) / (2.0 * len(rows))  # what independent columns have (Miller 1955)
    entropy = numpy.diag(M).copy()
    least = numpy.minimum.outer(entropy, entropy)
    found = numpy.where(least > 1e-9, numpy.maximum(M - chance, 0) / numpy.maximum(least, 1e-9), 0.0)
    numpy.fill_diagonal(found, 0.0)
    return found


def ordered(D: NDArray[numpy.float64], drawn: Sequence[int], last: Sequence[int]) -> list[int]:
    """The drawn columns by a maximum spanning tree of dependence; `last` stand at its end, in their order."""
    left = [j for j in drawn if j not in last]
    order: list[int] = []
    if left:
        first = max(left, key=lambda j: (D[j, left].sum(), -j))
        order.append(first)
        left.remove(first)
    while left:
        nearest = max(left, key=lambda j: (D[j, order].max(), -j))
        order.append(nearest)
        left.remove(nearest)
    return order + list(last)


# -- the index of earlier columns ------------------------------------------------------------------------------------
def score_table(column: Column, counts: NDArray[Any] | None) -> NDArray[numpy.float32]:
    """Normal score of each code, or of each rank of a ranked column (then counts are not needed); missing is 0."""
    if column.ranked:
        n = len(column.values)
        last = numpy.searchsorted(column.values, column.values, "right")
        middle = (column.first.astype(numpy.float64) + last) / (2.0 * n)
        table = numpy.zeros(65_536, numpy.float32)
        table[:n] = ndtri(numpy.clip(middle, 0.5 / n, 1 - 0.5 / n))
        return table
    assert counts is not None
    table = numpy.zeros(256, numpy.float32)
    known = counts[: column.codes].astype(numpy.float64)
    total = max(1.0, known.sum())
    middle = (numpy.cumsum(known) - known / 2) / total
    table[: column.codes] = ndtri(numpy.clip(middle, 0.5 / total, 1 - 0.5 / total))
    return table


def scores(
    X: Any, R: Any, rank_row: Sequence[int], columns: Sequence[Column]
) -> tuple[list[Any], NDArray[numpy.float64]]:
    """(score table of each column, None for ranked and undrawn ones; correlations of all scores (columns, columns))."""
    rows = some_rows(X.shape[1], 2 * ROWS)
    tables: list[Any] = [None] * len(columns)
    Z = numpy.zeros((len(rows), len(columns)), numpy.float32)
    for j, column in enumerate(columns):
        if column.drawn and not column.nominal:
            codes = X[j, rows]
            table = score_table(column, numpy.bincount(codes, minlength=256))
            Z[:, j] = table[R[rank_row[j], rows] if column.ranked else codes]
            tables[j] = None if column.ranked else table
    numbers = [j for j, c in enumerate(columns) if c.drawn and not c.nominal]
    parts = _leading(Z[:, numbers]) if numbers else numpy.zeros((len(rows), 0), numpy.float32)
    for j, column in enumerate(columns):
        if column.drawn and column.nominal:
            codes = X[j, rows]
            counts = numpy.bincount(codes, minlength=256)
            tables[j] = _category_scores(codes, counts, parts)
            Z[:, j] = tables[j][codes]
    spread = Z.std(0)
    middle = Z.mean(0)
    Z -= middle
    Z /= numpy.where(spread > 1e-6, spread, 1.0)
    for j in range(len(columns)):
        if tables[j] is not None:
            tables[j] = ((tables[j] - middle[j]) / (spread[j] if spread[j] > 1e-6 else 1.0)).astype(numpy.float32)
    return tables, (Z.T @ Z).astype(numpy.float64) / len(rows)


def _leading(Z: NDArray[numpy.float32], most: int = 3) -> NDArray[numpy.float32]:
    """The leading principal components of scores."""
    S = Z.astype(numpy.float64).T @ Z / len(Z)
    _, vectors = numpy.linalg.eigh(S)
    return (Z @ vectors[:, ::-1][:, :most]).astype(numpy.float32)


def _category_scores(codes: Any, counts: Any, parts: Any) -> NDArray[numpy.float32]:
    if not parts.shape[1]:
        share = counts / max(1, counts.sum())
        return numpy.where(counts > 0, ndtri(numpy.clip(numpy.cumsum(share) - share / 2, 1e-4, 1 - 1e-4)), 0).astype(
            numpy.float32
        )
    means = [
        numpy.bincount(codes, weights=parts[:, q], minlength=256) / (counts + SHRINK) for q in range(parts.shape[1])
    ]
    return max(means, key=lambda m: float(m[codes].var())).astype(numpy.float32)


def weights(S: NDArray[numpy.float64], column: int, earlier: Sequence[int]) -> NDArray[numpy.float32]:
    """Of the earlier columns' scores in the index of a column."""
    p = list(earlier)
    found = numpy.linalg.solve(S[numpy.ix_(p, p)] + RIDGE * numpy.eye(len(p)), S[p, column])
    return found.astype(numpy.float32)


def index_of(get: Any, earlier: Sequence[int], beta: Any, n: int) -> NDArray[numpy.float32]:
    """The index of n rows; `get(j)` gives a column's scores."""
    found = numpy.zeros(n, numpy.float32)
    for j, b in zip(earlier, beta, strict=True):
        found += b * get(j)
    return found


def grid_of(index: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """Its quantiles, by which it gets codes and ranks."""
    ordered_ = numpy.sort(index)
    n = len(ordered_)
    return ordered_ if n <= GRID else ordered_[numpy.round(numpy.linspace(0, n - 1, GRID)).astype(numpy.int64)]
