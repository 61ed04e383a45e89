"""Bootstrap and subset of a least-squares effect: integer weights on the rows of an orthonormal basis.

Up to GRAM_COLUMNS columns from Gram matrices, above that by conjugate gradients; single simulations that either cannot
settle (a few rows carry a coefficient, or a resample lacks them) from a float64 Gram matrix. See also: `ols`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from millrace.analyses.refute.kernels import conjugate, grams
from millrace.analyses.refute.kernels.resample import CHUNK, KEPT_BYTES, Counts, Weighing
from millrace.analyses.refute.kernels.whiten import Whitened, basis_rows, root
from millrace.analyses.refute.study import BATCH, Study, Target

Array = numpy.ndarray[Any, Any]
Shared = Mapping[str, Any]

GRAM_COLUMNS = 8
"""Measured: at 6 to 10 columns of the basis both take the same time, at 26 the Gram matrices three times as much."""

HEAVY_TREATMENT = 0.05
"""When one row has more than this share of the treatment's own variation, resamples without the few such rows may not
determine the effect: every simulation then gets a rank decision."""

ALONE_BYTES = 4 << 20
"""Gram matrices of single simulations that are held at a time."""

TOLERANCE = 2e-6
"""Of the effect, in classical standard errors; what float32 rounding leaves is about 1e-6."""


def solver(shared: Shared, precision: str = "fast") -> str:
    """`alone`, `together` or `conjugate`: how bootstrap and subset are solved; known before any simulation."""
    if shared["heavy"]:
        return "alone"
    if shared["basis"].shape[1] <= GRAM_COLUMNS:
        return "alone" if precision == "exact" else "together"
    return "conjugate"


def effects(
    study: Study,
    shared: Shared,
    test: Weighing,
    first: int,
    seed: int,
    *,
    target: Target,
    fraction: float,
    precision: str,
    notes: list[str] | None,
    made: Any = grams,
) -> Array:
    """float64 (BATCH,): the effects of simulations first .. first + BATCH - 1; NaN where the rows do not determine it.

    made: who makes Gram matrices, `grams` or one with the same `together` and `alone`; another than `grams` makes them
    of any number of columns.
    """
    weights = Counts(study.rows, test, seed, first, BATCH, fraction, study.clusters, KEPT_BYTES)
    scale = 1.0 if test == "bootstrap" else fraction
    way = solver(shared, precision)
    if way == "conjugate" and made is not grams:
        way = "alone" if precision == "exact" else "together"
    if way == "alone":
        return _alone(study, shared, weights, numpy.arange(BATCH), target, made)
    if way == "together":
        out, stuck = _together(study, shared, weights, scale, target, made)
    else:
        out, stuck = _conjugate(study, shared, weights, scale, target, precision)
    again = numpy.flatnonzero(stuck)
    if len(again):
        out[again] = _alone(study, shared, weights, again, target, made)
        if notes is not None:
            notes.append(
                f"{test}: {len(again)} of the simulations {first} to {first + BATCH - 1} rest on a few rows with high "
                "leverage and were solved from their own Gram matrix, which is slower and as exact."
            )
    return out


def _together(
    study: Study, shared: Shared, weights: Counts, scale: float, target: Target, made: Any
) -> tuple[Array, Array]:
    gram = made.together(shared["basis"], weights, shared["residual"])
    functional, offset = _functional(shared, gram[:, :-1, 0] * numpy.sqrt(shared["weight_sum"]), target)
    eigenvalues = numpy.linalg.eigvalsh(gram[:, :-1, :-1])
    stuck = eigenvalues[:, 0] < 1e-3 * scale  # float32 products: below that not to be trusted
    gram[stuck, :-1, :-1] = numpy.eye(gram.shape[1] - 1)
    solution = numpy.linalg.solve(gram[:, :-1, :-1], gram[:, :-1, -1:])[:, :, 0]
    return shared["effect"] + offset + (functional * solution).sum(1), stuck


def _alone(study: Study, shared: Shared, weights: Counts, which: Array, target: Target, made: Any) -> Array:
    whitened, k = Whitened.of(shared), shared["basis"].shape[1]

    def rows(begin: int, end: int) -> Array:
        return basis_rows(study, whitened, shared["whitener"], begin, end)[0]

    some = max(1, ALONE_BYTES // (8 * (k + 1) ** 2))
    out = []
    for at in range(0, len(which), some):
        grammed = made.alone(rows, weights, which[at : at + some], shared["residual"])
        functional, offset = _functional(shared, grammed[:, :-1, 0] * numpy.sqrt(whitened.weight_sum), target)
        shifts = [grams.value(gram, row) for gram, row in zip(grammed, functional, strict=True)]
        out.append(shared["effect"] + offset + numpy.array(shifts))
    return numpy.concatenate(out)


def _conjugate(
    study: Study, shared: Shared, weights: Counts, scale: float, target: Target, precision: str
) -> tuple[Array, Array]:
    basis, k = shared["basis"], shared["basis"].shape[1]
    cap, tolerance = max(30, k // 2), TOLERANCE * shared["se_classic"]
    if len(shared["crossed"]):
        ones = numpy.ones(study.rows, numpy.float32) if study.weights is None else numpy.sqrt(study.weights)
        right, sums = conjugate.moments(basis, weights, [shared["residual"], ones])
        functional, offset = _functional(shared, sums, target)
        adjoint = functional / scale
    else:
        right, image = conjugate.moments(basis, weights, [shared["residual"], basis[:, 1]])
        functional, offset = _functional(shared, right, target)
        adjoint = (2.0 * functional - image * (functional[:, 1:2] / scale)) / scale
    solved = conjugate.solve(basis, weights, right, functional, adjoint, scale, tolerance, cap)
    shift, stuck = solved.values, solved.stuck
    if precision == "exact":
        left, sums = _residuals(study, shared, weights, solved.solution)
        functional, offset = _functional(shared, sums, target)
        again = conjugate.solve(basis, weights, left, functional, functional / scale, scale, 1e-6 * tolerance, cap)
        shift, stuck = (functional * solved.solution).sum(1) + again.values, stuck | again.stuck
    return shared["effect"] + offset + shift, stuck


def _functional(shared: Shared, sums: Array, target: Target) -> tuple[Array, Array]:
    """What the effect of a resample is, given its solution x: effect of all rows + offset + functional . x.

    sums: (B, k), X'C root(weights), which say where the means of the resample are. Without interactions the effect is the
    treatment's coefficient. With them it is that coefficient plus (mean of the target population in the resample - in all
    rows) . coefficients of the crossed confounders.
    """
    triangle = shared["triangle"]
    size, k = sums.shape
    functional, crossed = numpy.zeros((size, k)), len(shared["crossed"])
    if not crossed:
        functional[:, 1] = 1.0 / triangle[-2, -2]
        return functional, numpy.zeros(size)
    moved = _mean_shift(shared, sums, target)
    raw_functional = numpy.zeros((size, k - 1))
    kept = len(shared["kept"])
    raw_functional[:, kept : kept + crossed] = moved
    raw_functional[:, -1] = 1.0
    functional[:, 1:] = raw_functional @ shared["whitener"]
    return functional, moved @ shared["coefficients"][kept : kept + crossed]


def _mean_shift(shared: Shared, sums: Array, target: Target) -> Array:
    """(B, q): mean of the crossed confounders over the resample's target population less that over all rows'."""
    kept, crossed = len(shared["kept"]), len(shared["crossed"])
    places = numpy.searchsorted(shared["kept"], shared["crossed"])
    weight = sums[:, :1] * numpy.sqrt(shared["weight_sum"])
    raw_sums = numpy.roll(sums[:, 1:], -1, axis=1) @ shared["triangle"][:-1, :-1]
    from_target = (shared["centre"] - shared["target_centre"])[places]
    everyone = raw_sums[:, :kept][:, places] + weight * from_target  # of (confounder - its target mean)
    if target == "ate":
        return everyone / weight
    treated = raw_sums[:, -1:] + weight * shared["treatment_mean"]
    among_treated = (
        raw_sums[:, kept : kept + crossed] + weight * shared["cross_mean"] + shared["treatment_mean"] * everyone
    )
    return among_treated / treated if target == "att" else (everyone - among_treated) / (weight - treated)


def _residuals(study: Study, shared: Shared, weights: Counts, solution: Array) -> tuple[Array, Array]:
    """float64 X'C(e - X x) and X'C root(weights), each (B, k)."""
    whitened = Whitened.of(shared)
    left, sums = numpy.zeros_like(solution), numpy.zeros_like(solution)
    for piece in range(weights.chunks):
        counts = weights.chunk(piece).astype(numpy.float64)
        begin, end = piece * CHUNK, piece * CHUNK + counts.shape[1]
        rows, _ = basis_rows(study, whitened, shared["whitener"], begin, end)
        block = shared["residual"][begin:end] - solution @ rows.T
        block *= counts
        left += block @ rows
        if len(shared["crossed"]):
            scale = root(study, begin, end)
            sums += (counts if scale is None else counts * scale) @ rows
    return left, sums
