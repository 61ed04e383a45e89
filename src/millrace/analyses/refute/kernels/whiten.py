"""The regression's columns as orthonormal ones: two passes for the triangle of a QR decomposition, one for the basis.

The columns are [1, treatment, confounders], and for the interacted regression also treatment x (confounders - their mean
in the target population). Everything is centred by its (weighted) mean, which takes the intercept out, and rows are
scaled by the root of their weight, so that weighted least squares is least squares. The triangle comes from QR of one
stretch of rows after another (never from a Gram matrix, which would square the condition number); collinear columns are
found on it. A basis with X'X = 1 makes every resampled system X'CX nearly a multiple of the identity (`conjugate`) and
placebo and random causes inner products (`ols`).

Does not know tests or random numbers. See also: `study.Study`, `ols.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy
from scipy.linalg import solve_triangular

from millrace.analyses.refute.study import Study, Target
from millrace.run.errors import WrongQuestion

Array = numpy.ndarray[Any, Any]

RANK_TOLERANCE = 1e-7
"""A column whose residual on the columns before it is at most this share of its own length is collinear. The same
bound as R's `lm`; the rounding of the data alone makes about 1e-9 with means that are 1e6 standard deviations."""

STRETCH_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Whitened:
    """What turns raw rows into rows of the basis; p' of the p confounders are kept, q of them are crossed.

    kept, crossed: int64 column numbers. centre, target_centre: (p',) means over all rows and over the target population.
    cross_mean: (q,). triangle: (p'+q+2,)^2, upper, of [confounders, crossed, treatment, outcome], positive diagonal.
    """

    kept: Array
    crossed: Array
    centre: Array
    target_centre: Array
    cross_mean: Array
    treatment_mean: float
    outcome_mean: float
    weight_sum: float
    triangle: Array

    @property
    def regressors(self) -> int:
        """Without the intercept, with the treatment."""
        return len(self.triangle) - 1

    def coefficients(self) -> Array:
        """(p'+q+1,): of confounders, crossed ones, treatment."""
        return solve_triangular(self.triangle[:-1, :-1], self.triangle[:-1, -1])

    def whitener(self) -> Array:
        """(p'+q+1,)^2: raw rows times this are the basis without its first column; the treatment's comes first."""
        inverse = solve_triangular(self.triangle[:-1, :-1], numpy.eye(self.regressors))
        return numpy.ascontiguousarray(numpy.roll(inverse, 1, axis=1))

    def arrays(self) -> dict[str, Array | float]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, shared: Mapping[str, Any]) -> Whitened:
        return cls(**{name: shared[name] for name in cls.__slots__})


def stretches(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Begin and end of stretches of rows: as many as STRETCH_BYTES hold, fixed by the shape alone."""
    step = max(2 * columns, min(8192, STRETCH_BYTES // (8 * max(columns, 1))))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)


def root(study: Study, begin: int, end: int) -> Array | None:
    """(rows,): what scales the rows, None for ones."""
    return None if study.weights is None else numpy.sqrt(study.weights[begin:end])


def in_target(study: Study, target: Target, begin: int, end: int) -> Array:
    """float64 (rows,): weight of each row in the population that the effect is an average over."""
    treatment = study.treatment[begin:end]
    member = {"ate": numpy.ones(end - begin), "att": treatment, "atc": 1.0 - treatment}[target]
    return member if study.weights is None else member * study.weights[begin:end]


def raw(study: Study, whitened: Whitened, begin: int, end: int) -> Array:
    """float64 (rows, p'+q+2): centred, scaled [confounders, crossed, treatment, outcome] of these rows."""
    kept, crossed = len(whitened.kept), len(whitened.crossed)
    out = numpy.empty((end - begin, kept + crossed + 2))
    rows = numpy.asarray(study.confounders[begin:end], numpy.float64)
    whole = kept == rows.shape[1]
    numpy.subtract(rows if whole else rows[:, whitened.kept], whitened.centre, out=out[:, :kept])
    numpy.subtract(study.treatment[begin:end], whitened.treatment_mean, out=out[:, -2])
    numpy.subtract(study.outcome[begin:end], whitened.outcome_mean, out=out[:, -1])
    if crossed:
        places = numpy.searchsorted(whitened.kept, whitened.crossed)
        moved = out[:, places] + (whitened.centre - whitened.target_centre)[places]
        numpy.multiply(moved, out[:, -2:-1], out=out[:, kept : kept + crossed])
        out[:, kept : kept + crossed] -= whitened.cross_mean
    scale = root(study, begin, end)
    if scale is not None:
        out *= scale[:, None]
    return out


def basis_rows(study: Study, whitened: Whitened, whitener: Array, begin: int, end: int) -> tuple[Array, Array]:
    """Rows of the basis, float64 (rows, k), k = 1 + regressors: [constant, treatment, ...]; and the raw rows."""
    rows = raw(study, whitened, begin, end)
    out = numpy.empty((end - begin, whitened.regressors + 1))
    scale = root(study, begin, end)
    out[:, 0] = (1.0 if scale is None else scale) / numpy.sqrt(whitened.weight_sum)
    out[:, 1:] = rows[:, :-1] @ whitener
    return out, rows


def whiten(study: Study, target: Target = "ate", interacted: bool = False) -> Whitened:
    """Means, triangle and rank, by two passes (three with interactions).

    WrongQuestion: no rows left over, a treatment that the confounders determine, att or atc of a treatment that is not
    binary (only the interacted regression asks for them).
    """
    if interacted and target != "ate" and not study.binary:
        raise WrongQuestion(
            f"The target {target!r} needs a binary treatment: who is treated is not defined for a treatment with more "
            "values. Ask for target='ate'."
        )
    whole = _means(study, target)
    if interacted:
        every = whole.kept
        whole = replace(whole, crossed=every, cross_mean=numpy.zeros(len(every)))
        whole = replace(whole, cross_mean=_cross_mean(study, whole))
    whole = replace(whole, triangle=_triangle(study, whole))
    kept, crossed = _ranked(whole)
    p, columns = len(whole.kept), len(whole.triangle)
    if len(kept) + len(crossed) < columns - 2:
        left = numpy.concatenate([kept, p + crossed, [columns - 2, columns - 1]])
        whole = replace(
            whole,
            kept=kept,
            crossed=crossed,
            centre=whole.centre[kept],
            target_centre=whole.target_centre[kept],
            cross_mean=whole.cross_mean[crossed],
            triangle=_upright(numpy.linalg.qr(whole.triangle[:, left], mode="r")),
        )
    if study.rows <= whole.regressors + 1:
        raise WrongQuestion(
            f"The regression has {whole.regressors + 1} coefficients and only {study.rows} rows, which leaves nothing to "
            "judge it by. Give more rows or fewer confounders."
        )
    return whole


def _means(study: Study, target: Target) -> Whitened:
    p = study.confounders.shape[1]
    sums, target_sums = numpy.zeros(p), numpy.zeros(p)
    treatment = outcome = weight = target_weight = 0.0
    for begin, end in stretches(study.rows, p + 2):
        rows = numpy.asarray(study.confounders[begin:end], numpy.float64)
        weights, members = in_target(study, "ate", begin, end), in_target(study, target, begin, end)
        sums += weights @ rows
        target_sums += members @ rows
        treatment += float(weights @ study.treatment[begin:end])
        outcome += float(weights @ study.outcome[begin:end])
        weight += float(weights.sum())
        target_weight += float(members.sum())
    every, none = numpy.arange(p, dtype=numpy.int64), numpy.empty(0, numpy.int64)
    centre, nothing = sums / weight, numpy.empty(0)
    means = (treatment / weight, outcome / weight, weight)
    return Whitened(every, none, centre, target_sums / target_weight, nothing, *means, numpy.empty((0, 0)))


def _cross_mean(study: Study, whole: Whitened) -> Array:
    p = len(whole.kept)
    sums = numpy.zeros(p)
    for begin, end in stretches(study.rows, 2 * p + 2):
        rows = raw(study, whole, begin, end)[:, p : 2 * p]  # scaled by the root of the weights once
        scale = root(study, begin, end)
        sums += rows.sum(0) if scale is None else scale @ rows
    return sums / whole.weight_sum


def _triangle(study: Study, whole: Whitened) -> Array:
    columns = len(whole.kept) + len(whole.crossed) + 2
    triangle = numpy.zeros((0, columns))
    for begin, end in stretches(study.rows, columns):
        triangle = numpy.linalg.qr(numpy.concatenate([triangle, raw(study, whole, begin, end)]), mode="r")
    if len(triangle) < columns:  # fewer rows than columns
        triangle = numpy.concatenate([triangle, numpy.zeros((columns - len(triangle), columns))])
    return _upright(triangle)


def _upright(triangle: Array) -> Array:
    """The same decomposition with a diagonal that is not negative."""
    signs = numpy.where(numpy.diag(triangle) < 0, -1.0, 1.0)
    return numpy.ascontiguousarray(signs[:, None] * triangle)


def independent(columns: Array, lengths: Array, order: Array) -> Array:
    """Which columns to keep, in rising order: those that are not, to RANK_TOLERANCE, made of the ones before them.

    columns: (m, k), each perhaps a column of a triangle. lengths: (k,) below which a column counts as nothing. order:
    (k,) column numbers, the earlier stays. QR with limited pivoting (the collinear columns go to the end), as `lm` does:
    of two equal columns it is the later that is dropped, whatever their scale.
    """
    directions = numpy.empty((len(columns), 0))
    kept = []
    for j in order:
        length = numpy.linalg.norm(columns[:, j])
        rest = columns[:, j] - directions @ (directions.T @ columns[:, j])
        rest -= directions @ (directions.T @ rest)
        size = numpy.linalg.norm(rest)
        if size > max(RANK_TOLERANCE * length, lengths[j]) and directions.shape[1] < len(columns):
            directions = numpy.column_stack([directions, rest / size])
            kept.append(j)
    return numpy.sort(numpy.array(kept, numpy.int64))


def _ranked(whole: Whitened) -> tuple[Array, Array]:
    """Confounders and crossed confounders to keep. Crossed ones come after the treatment, so that it stays."""
    p, q = len(whole.kept), len(whole.crossed)
    treatment = p + q
    lengths = numpy.zeros(p + q + 1)
    lengths[:p] = 1e-12 * abs(whole.centre) * numpy.sqrt(whole.weight_sum)  # constant but for rounding
    order = numpy.concatenate([numpy.arange(p), [treatment], numpy.arange(p, treatment)])
    left = independent(whole.triangle[:, :-1], lengths, order)
    if treatment not in left:
        raise WrongQuestion(
            "The treatment does not vary once the confounders are given (it is a linear combination of them, or constant): "
            "no data can tell their effects apart. Take the confounder that stands for the treatment out."
        )
    kept = left[left < p]
    crossed = left[(left >= p) & (left < treatment)] - p
    return kept, crossed[numpy.isin(crossed, kept)]
