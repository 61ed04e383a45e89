"""Resampled least squares, all simulations of a batch at once: X'CX x = X'Ce by block conjugate gradients.

X is an orthonormal basis, so X'CX is close to `scale` times the identity and a few steps do: the error falls by about
sqrt(k/n) a step. What is wanted is one linear functional of the solution, not the solution; so after the last step it is
corrected by the residual r that is left, l'x + l'(2 - A/s) r / s, a Richardson step from both sides that costs half a
pass (Al is made together with the right-hand side) and gains as much as two steps.

float32 blocks of 1,024 rows, float64 sums. Does not know estimators, nor where counts come from. See also: `ols`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy

from millrace.analyses.refute.kernels.resample import CHUNK

Array = numpy.ndarray[Any, Any]

FLAT = 2e-3
"""Below this eigenvalue (of about 1) a resample lacks the rows that carry a coefficient, and float32 products with
residuals of 1e-7 do not give the answer to 1e-5 standard errors any more."""


class Weights(Protocol):
    """`resample.Counts`: integer weights of all rows, a piece of CHUNK rows at a time."""

    chunks: int
    count: int

    def chunk(self, k: int) -> Array: ...


@dataclass(frozen=True, slots=True)
class Solved:
    """values: (B,) the functional; solution: (B, k); steps; stuck: bool (B,), not to be trusted (the cap was reached, or an
    eigenvalue is nearly nothing)."""

    values: Array
    solution: Array
    steps: int
    stuck: Array


@numba.njit(cache=True)
def weigh(block, counts):  # type: ignore[no-untyped-def]
    """block *= counts, element by element."""
    for b in range(block.shape[0]):
        row, count = block[b], counts[b]
        for r in range(row.shape[0]):
            row[r] *= numpy.float32(count[r])


@numba.njit(cache=True)
def spread(values, counts, out):  # type: ignore[no-untyped-def]
    """out[b] = values * counts[b]."""
    for b in range(out.shape[0]):
        row, count = out[b], counts[b]
        for r in range(row.shape[0]):
            row[r] = values[r] * numpy.float32(count[r])


def moments(basis: Array, weights: Weights, columns: list[Array]) -> list[Array]:
    """[X'C column] for each (n,) column: float64 (B, k) each, in one pass."""
    size, k = weights.count, basis.shape[1]
    sums = numpy.zeros((len(columns) * size, k))
    buffer = numpy.empty((len(columns) * size, CHUNK), numpy.float32)
    product = numpy.empty(sums.shape, numpy.float32)
    for piece in range(weights.chunks):
        begin = piece * CHUNK
        rows = basis[begin : begin + CHUNK]
        block = buffer if len(rows) == CHUNK else numpy.empty((len(buffer), len(rows)), numpy.float32)
        counts = weights.chunk(piece)
        for place, column in enumerate(columns):
            values = numpy.ascontiguousarray(column[begin : begin + CHUNK], numpy.float32)
            spread(values, counts, block[place * size : (place + 1) * size])
        sums += numpy.dot(block, rows, out=product)
    return list(sums.reshape(len(columns), size, k))


def _times(basis: Array, weights: Weights, directions: Array, active: Array | None) -> Array:
    """(X'C_b X) direction_b for the active simulations, one pass."""
    size, k = directions.shape
    single, sums = directions.astype(numpy.float32), numpy.zeros((size, k))
    buffer, product = numpy.empty((size, CHUNK), numpy.float32), numpy.empty((size, k), numpy.float32)
    for piece in range(weights.chunks):
        rows = basis[piece * CHUNK : (piece + 1) * CHUNK]
        block = buffer if len(rows) == CHUNK else numpy.empty((size, len(rows)), numpy.float32)
        numpy.dot(single, rows.T, out=block)
        counts = weights.chunk(piece)
        weigh(block, counts if active is None else counts[active])
        sums += numpy.dot(block, rows, out=product)
    return sums


def solve(
    basis: Array,
    weights: Weights,
    right: Array,
    functional: Array,
    adjoint: Array,
    scale: float,
    tolerance: float,
    cap: int,
) -> Solved:
    """l'x of all simulations, to about `tolerance` in the units of l'x.

    basis: float32 (n, k). right, functional, adjoint: (B, k), X'Ce, l, and what the last residual is multiplied by.
    scale: X'CX is about this times the identity. cap: steps at most; what is not solved then is `stuck`.

    Stops when the change of every value, times what the residuals say of the rate, is below the tolerance (the largest of
    many simulations, so that one small change by chance ends nothing), or when all residuals have fallen by 1e7. A
    simulation whose residual has is left out of later steps.
    """
    size = len(right)
    x, residual, direction = numpy.zeros_like(right), right.copy(), right / scale
    norms = numpy.sqrt((residual**2).sum(1))
    start, solved = norms.copy(), norms == 0.0
    values = (adjoint * residual).sum(1)
    lengths, shrinks = numpy.ones((cap, size)), numpy.zeros((cap, size))
    step = 0
    while step < cap and not solved.all():
        step += 1
        active = numpy.flatnonzero(~solved)
        some = None if len(active) == size else active
        image = _times(basis, weights, direction[active], some)
        curvature = numpy.maximum((direction[active] * image).sum(1), 1e-300)
        length = norms[active] ** 2 / scale / curvature
        x[active] += length[:, None] * direction[active]
        residual[active] -= length[:, None] * image
        left = numpy.sqrt((residual[active] ** 2).sum(1))
        rate = left / norms[active]
        lengths[step - 1, active], shrinks[step - 1, active] = length, rate**2
        direction[active] = residual[active] / scale + (rate**2)[:, None] * direction[active]
        norms[active] = left
        now = (functional * x).sum(1) + (adjoint * residual).sum(1)
        change = abs(now - values)[active] * numpy.where(rate < 0.9, rate / (1.0 - numpy.minimum(rate, 0.9)), 10.0)
        values = now
        solved[active] = left <= 1e-7 * start[active]
        if len(active) >= min(size, 10) and change.max() <= tolerance:
            solved[:] = True
    stuck = ~solved | (_smallest(lengths[:step], shrinks[:step]) < FLAT)
    return Solved(values, x, step, stuck)


def _smallest(lengths: Array, shrinks: Array) -> Array:
    """(B,): smallest Ritz value of A / scale, from the coefficients of the steps (the Lanczos matrix of Golub and Meurant).

    Steps that a simulation did not take have length 1 and no shrink, which adds the eigenvalue 1.
    """
    steps, size = lengths.shape
    matrix = numpy.zeros((size, steps, steps))
    place = numpy.arange(steps)
    matrix[:, place, place] = (1.0 / lengths).T
    matrix[:, place[1:], place[1:]] += (shrinks[:-1] / lengths[:-1]).T
    matrix[:, place[1:], place[:-1]] = (numpy.sqrt(shrinks[:-1]) / lengths[:-1]).T
    return numpy.linalg.eigvalsh(matrix)[:, 0] if steps else numpy.ones(size)
