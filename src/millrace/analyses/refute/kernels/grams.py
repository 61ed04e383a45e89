"""Resampled least squares from weighted Gram matrices: all simulations by one GEMM, or one simulation with care.

`together`: the products of all pairs of columns are made once for a row and multiplied by the counts of the whole batch;
the cheapest way for few columns. `alone`: float64, one simulation at a time, with a rank decision: for resamples that
lack rows which a coefficient needs. Does not know estimators. See also: `conjugate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy

from millrace.analyses.refute.kernels.conjugate import Weights
from millrace.analyses.refute.kernels.resample import CHUNK

Array = numpy.ndarray[Any, Any]

PAIRED = 256
"""Rows whose pairs are made at a time, so that they stay in the second-level cache up to 25 columns."""

SINGULAR = 1e-10
"""Eigenvalues of a resampled Gram matrix (that of all rows is the identity) below this share of the largest are none."""


@numba.njit(cache=True)
def _pairs(rows, out):  # type: ignore[no-untyped-def]
    """out[r] = all products of two columns of row r, upper triangle by rows."""
    k = rows.shape[1]
    for r in range(rows.shape[0]):
        row, products, place = rows[r], out[r], 0
        for i in range(k):
            first = row[i]
            for j in range(i, k):
                products[place + j - i] = first * row[j]
            place += k - i


def together(basis: Array, weights: Weights, column: Array) -> Array:
    """float64 (B, k+1, k+1): [X, column]'C[X, column] from float32 products; column: (n,)."""
    size, k = weights.count, basis.shape[1] + 1
    above = k * (k + 1) // 2
    sums, products = numpy.zeros((size, above)), numpy.empty((PAIRED, above), numpy.float32)
    single, product = numpy.empty((size, above), numpy.float32), numpy.empty((size, above), numpy.float32)
    rows = numpy.empty((CHUNK, k), numpy.float32)
    for piece in range(weights.chunks):
        begin, counts = piece * CHUNK, weights.chunk(piece).astype(numpy.float32)
        count = counts.shape[1]
        rows[:count, :-1] = basis[begin : begin + count]
        rows[:count, -1] = column[begin : begin + count]
        single[:] = 0.0
        for at in range(0, count, PAIRED):
            some = min(PAIRED, count - at)
            _pairs(rows[at : at + some], products[:some])
            single += numpy.dot(counts[:, at : at + some], products[:some], out=product)
        sums += single
    out = numpy.empty((size, k, k))
    upper = numpy.triu_indices(k)
    out[:, upper[0], upper[1]] = sums
    out[:, upper[1], upper[0]] = sums
    return out


def alone(rows_of: Callable[[int, int], Array], weights: Weights, which: Array, column: Array) -> Array:
    """float64 (len(which), k+1, k+1): [X, column]'C[X, column] in float64 of the simulations `which`.

    rows_of(begin, end): float64 rows of the basis.
    """
    out: Array | None = None
    for piece in range(weights.chunks):
        counts = weights.chunk(piece)[which].astype(numpy.float64)
        begin, end = piece * CHUNK, piece * CHUNK + counts.shape[1]
        rows = numpy.column_stack([rows_of(begin, end), column[begin:end]])
        if out is None:
            out = numpy.zeros((len(which), rows.shape[1], rows.shape[1]))
        for place in range(len(which)):
            out[place] += (rows * counts[place][:, None]).T @ rows
    return numpy.zeros((0, 0, 0)) if out is None else out


def value(gram: Array, functional: Array) -> float:
    """l'x of one simulation, gram (k+1, k+1) with the right-hand side last; NaN when the rows do not determine it."""
    eigenvalues, vectors = numpy.linalg.eigh(gram[:-1, :-1])
    seen = eigenvalues > SINGULAR * eigenvalues[-1]
    turned = vectors.T @ functional
    if (turned[~seen] ** 2).sum() > 1e-8 * (functional**2).sum():
        return float("nan")
    return float((turned[seen] / eigenvalues[seen]) @ (vectors.T @ gram[:-1, -1])[seen])
