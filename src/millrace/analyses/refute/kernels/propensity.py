"""The propensity score: logistic regression of a binary treatment on the confounders, once and 50 times side by side.

`fit` is Newton's method on all rows, streamed over the mapped confounders. `chord` solves the same equations for 50 weighted,
permuted or widened copies of the study at once: Newton with the Hessian of the full fit (Ortega and Rheinboldt 1970, 10.1: the
chord method), whose error shrinks by about 2 sqrt(k / n) a step, on a basis in which the weighted Gram matrix is n times the
identity. `refit` is the plain way, on the rows it is given. Separation has no estimate and is an error, never a large number.

Does not know outcomes. See also: `ipw` and `aipw`, which weight by the score, and `matching`, which matches on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy

from millrace.analyses.refute.kernels.resample import CHUNK, KEPT_BYTES, Counts, Shuffler, Weighing, chunks, normals
from millrace.analyses.refute.study import BATCH, Study
from millrace.run.errors import NotSupported, WrongQuestion

Array = numpy.ndarray[Any, Any]

BLOCK = 8_192
"""Rows that the full fit reads at a time."""
NEWTON_ROUNDS = 30
RIDGE_ROUNDS = 50
CHORD_ROUNDS = 20
FAR = 80.0
"""exp(-80) and its inverse are still ordinary float32 numbers; a propensity so near to 0 or 1 is clipped in any case."""


class Separation(WrongQuestion):
    """Some rows can be told apart without error by their treatment: the likelihood has no maximum. `columns`: the confounders
    (counted from 0) that do it."""

    def __init__(self, message: str, columns: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.columns = columns


@dataclass(frozen=True, slots=True)
class Basis:
    """Z = [1, (W - mean) @ rotation]: Z' diag(weights) Z = n times the identity. rotation: (p, k - 1); k - 1 < p where columns
    are collinear (the span is the same, so is every fitted value)."""

    mean: Array
    rotation: Array

    @property
    def width(self) -> int:
        return 1 + self.rotation.shape[1]

    def rows(self, confounders: Array) -> Array:
        """float64 (m, k) of m rows of confounders."""
        out = numpy.empty((len(confounders), self.width))
        out[:, 0] = 1.0
        out[:, 1:] = (numpy.asarray(confounders, numpy.float64) - self.mean) @ self.rotation
        return out


@dataclass(frozen=True, slots=True)
class Propensity:
    """scores, logits: (n,), not clipped. coefficients, errors: (p + 1,), the intercept first (errors from the information
    matrix; of collinear columns the shortest coefficients). theta: (k,) in the basis. information: (k, k) there."""

    scores: Array
    logits: Array
    coefficients: Array
    errors: Array
    theta: Array
    information: Array
    rounds: int


def blocks(rows: int) -> Iterator[slice]:
    for begin in range(0, rows, BLOCK):
        yield slice(begin, min(begin + BLOCK, rows))


def require_binary(study: Study, estimator: str) -> None:
    """WrongQuestion unless the treatment is 0 and 1, with both in it."""
    if not study.binary:
        raise NotSupported(
            f"The estimator {estimator!r} needs a binary treatment (0 and 1), and this one has other values. Use "
            "estimator='ols' or 'dml' for a continuous treatment, or make it binary."
        )
    treated = int(numpy.count_nonzero(study.treatment))
    if treated in (0, study.rows):
        raise WrongQuestion(
            f"All {study.rows} rows have the treatment {float(treated > 0):g}: there is nobody to compare with. Choose other "
            "rows or another treatment."
        )


def require_trim(trim: float) -> None:
    if not 0 <= trim < 0.5:
        raise WrongQuestion(
            f"trim must be at least 0 and below 0.5 (propensity scores are clipped to trim .. 1 - trim), not {trim}."
        )


def weights_of(study: Study) -> Array:
    return numpy.ones(study.rows) if study.weights is None else numpy.asarray(study.weights, numpy.float64)


def whitening(study: Study) -> Basis:
    """The basis of a study. Directions with less than 1e-10 of the largest variance (of standardised columns) are left out."""
    confounders, weight = study.confounders, weights_of(study)
    p, total = confounders.shape[1], float(weight.sum())
    mean = numpy.zeros(p)
    for at in blocks(study.rows):
        mean += weight[at] @ numpy.asarray(confounders[at], numpy.float64)
    mean /= total
    gram = numpy.zeros((p, p))
    for at in blocks(study.rows):
        centred = numpy.asarray(confounders[at], numpy.float64) - mean
        gram += (centred * weight[at, None]).T @ centred
    scale = numpy.sqrt(numpy.diag(gram))
    scale = numpy.where(scale > 0, scale, 1.0)
    values, vectors = numpy.linalg.eigh(gram / numpy.outer(scale, scale))
    kept = values > 1e-10 * max(float(values[-1]), 0.0) if p else numpy.zeros(0, bool)
    rotation = vectors[:, kept] / scale[:, None] / numpy.sqrt(values[kept]) * numpy.sqrt(total)
    return Basis(mean, numpy.ascontiguousarray(rotation))


def fit(study: Study, basis: Basis | None = None) -> Propensity:
    """Maximum likelihood (weighted), by Newton's method with halved steps. Raises `Separation`."""
    base = whitening(study) if basis is None else basis
    weight, treatment = weights_of(study), numpy.asarray(study.treatment, numpy.float64)
    share = float(weight @ treatment / weight.sum())
    theta = numpy.zeros(base.width)
    theta[0] = numpy.log(share / (1 - share))
    logits, step, before = numpy.empty(study.rows), numpy.zeros(base.width), numpy.inf
    for rounds in range(1, NEWTON_ROUNDS + 1):
        loss, gradient, information = _derivatives(study, base, theta, weight, logits)
        for _ in range(20):
            if loss <= before * (1 + 1e-12) + 1e-9:
                break
            step = step / 2
            theta -= step
            loss, gradient, information = _derivatives(study, base, theta, weight, logits)
        before = loss
        step = _newton_step(information, gradient, base)
        theta += step
        # Under separation the first of these comes to hold and the second never does.
        if step @ gradient <= 1e-14 and _reach(study, base, step) <= 1e-3:
            information = _derivatives(study, base, theta, weight, logits)[2]
            return _described(base, theta, information, logits, rounds)
    raise _separated(base, step)


def _derivatives(study: Study, base: Basis, theta: Array, weight: Array, logits: Array) -> tuple[float, Array, Array]:
    """(minus log likelihood, gradient of the log likelihood, information); writes `logits`."""
    k = base.width
    loss, gradient, information = 0.0, numpy.zeros(k), numpy.zeros((k, k))
    for at in blocks(study.rows):
        z = base.rows(study.confounders[at])
        logit = z @ theta
        logits[at] = logit
        t, w = study.treatment[at], weight[at]
        score = expit(logit)
        loss += float(w @ (numpy.logaddexp(0.0, logit) - t * logit))
        gradient += (w * (t - score)) @ z
        information += (z * (w * score * (1 - score))[:, None]).T @ z
    return loss, gradient, information


def expit(logit: Array) -> Array:
    """1 / (1 + exp(-logit)) without overflow."""
    small = numpy.exp(-numpy.abs(logit))
    return numpy.where(logit >= 0, 1.0, small) / (1.0 + small)


def _reach(study: Study, base: Basis, step: Array) -> float:
    return max(float(numpy.abs(base.rows(study.confounders[at]) @ step).max()) for at in blocks(study.rows))


def _newton_step(information: Array, gradient: Array, base: Basis) -> Array:
    try:
        return numpy.linalg.solve(information, gradient)
    except numpy.linalg.LinAlgError as error:
        raise _separated(base, numpy.linalg.eigh(information)[1][:, 0]) from error


def _separated(base: Basis, direction: Array) -> Separation:
    """Under separation every Newton step goes on by about 1 in the logits of the separated rows: it shows the direction."""
    size = numpy.abs(base.rotation @ direction[1:]) * numpy.sqrt((numpy.linalg.pinv(base.rotation) ** 2).sum(axis=0))
    worst = tuple(int(j) for j in numpy.flatnonzero(size >= 0.5 * size.max())) if len(size) else ()
    return Separation(
        f"Treated and untreated rows are separated by the confounders number {list(worst)} (counted from 0): for some of their "
        "values everybody, or nobody, is treated, so the propensity score is 1 or 0 there and no weighting or matching can "
        "adjust for them. Leave those rows out (the effect is then of the others), merge rare categories, or drop a "
        "confounder that decides the treatment.",
        worst,
    )


def _described(base: Basis, theta: Array, information: Array, logits: Array, rounds: int) -> Propensity:
    jacobian = numpy.zeros((1 + len(base.mean), base.width))
    jacobian[0, 0] = 1.0
    jacobian[0, 1:] = -base.mean @ base.rotation
    jacobian[1:, 1:] = base.rotation
    covariance = jacobian @ numpy.linalg.solve(information, jacobian.T)
    errors = numpy.sqrt(numpy.diag(covariance))
    return Propensity(expit(logits), logits, jacobian @ theta, errors, theta, information, rounds)


def ridge_scores(study: Study) -> Array:
    """Propensity scores, (n,), where the likelihood has no maximum: logistic regression on standardised confounders with a
    penalty of one row (le Cessie and van Houwelingen 1992), by Newton's method."""
    weight, p = weights_of(study), study.confounders.shape[1]
    middle, sd = study.confounders.mean(axis=0), study.confounders.std(axis=0)
    sd = numpy.where(sd > 0, sd, 1.0)
    theta, penalty = numpy.zeros(p + 1), numpy.r_[0.0, numpy.ones(p)]

    def scores() -> Iterator[tuple[slice, Array, Array]]:
        for at in blocks(study.rows):
            rows = numpy.ones((at.stop - at.start, p + 1))
            rows[:, 1:] = (study.confounders[at] - middle) / sd
            yield at, rows, 1 / (1 + numpy.exp(-numpy.clip(rows @ theta, -35, 35)))

    for _ in range(RIDGE_ROUNDS):
        gradient, hessian = -penalty * theta, numpy.diag(penalty + 1e-9)
        for at, rows, score in scores():
            gradient += (weight[at] * (study.treatment[at] - score)) @ rows
            hessian += (rows * (weight[at] * score * (1 - score))[:, None]).T @ rows
        step = numpy.linalg.solve(hessian, gradient)
        step *= min(1.0, 5.0 / max(1e-12, float(numpy.abs(step).max())))
        theta += step
        if numpy.abs(step).max() < 1e-8:
            break
    return numpy.concatenate([score for _, _, score in scores()])


def refit(design: Array, treatment: Array, weight: Array) -> tuple[Array, Array]:
    """(coefficients, scores) of a weighted logistic regression on the columns of `design` (m, k), with the constant in it.

    Rows of weight 0 are not looked at, but have a score. Raises `Separation`.
    """
    used = weight > 0
    x, t, w = design[used], treatment[used], weight[used]
    beta = numpy.zeros(design.shape[1])
    for _ in range(NEWTON_ROUNDS):
        score = expit(x @ beta)
        gradient = x.T @ (w * (t - score))
        information = (x * (w * score * (1 - score))[:, None]).T @ x
        scale = numpy.sqrt(numpy.maximum(numpy.diag(information), 1e-300))
        step = numpy.linalg.lstsq(information / numpy.outer(scale, scale), gradient / scale, rcond=1e-13)[0] / scale
        # A step longer than this overshoots; Newton's own steps are short near the solution.
        reach = float(numpy.abs(x @ step).max())
        beta += step * min(1.0, 4.0 / max(reach, 1e-300))
        if reach < 1e-9:
            return beta, expit(design @ beta)
    raise Separation(
        f"A logistic regression of {len(x)} rows on {design.shape[1] - 1} columns did not converge in {NEWTON_ROUNDS} rounds: "
        "treated and untreated rows are separated. Merge rare categories or drop the confounder that decides the treatment."
    )


def moments(study: Study, base: Basis, columns: Array) -> Array:
    """Z' columns: (k, q) of columns (n, q)."""
    out = numpy.zeros((base.width, columns.shape[1]))
    for at in blocks(study.rows):
        out += base.rows(study.confounders[at]).T @ columns[at]
    return out


def along(study: Study, base: Basis, directions: Array) -> Array:
    """Z directions: (n, q) of directions (k, q)."""
    out = numpy.empty((study.rows, directions.shape[1]))
    for at in blocks(study.rows):
        out[at] = base.rows(study.confounders[at]) @ directions
    return out


def robust_error(influence: Array, clusters: Array | None, counts: Array | None = None) -> float:
    """sqrt(G / (G - 1) sum of squares) of the influences (n,), summed inside clusters first; counts: copies of each row."""
    copies = numpy.ones(len(influence)) if counts is None else counts.astype(numpy.float64)
    if clusters is not None:
        size = numpy.bincount(clusters)
        copies = numpy.bincount(clusters, copies) / numpy.maximum(size, 1)
        influence = numpy.bincount(clusters, influence)
    groups = float(copies.sum())
    return float(numpy.sqrt(groups / (groups - 1) * (copies @ influence**2)))


# -- 50 at a time ------------------------------------------------------------------------------------------------------------


def arrange(study: Study, base: Basis, found: Propensity, scratch: str | None = None) -> dict[str, Any]:
    """What simulations share: the basis in float32, in pieces of 1,024 rows with the treated rows of a piece first (so that an
    arm is a contiguous part of a piece), and the full fit. `place`: for each place, the row of its piece that stands there.
    The basis lies in the file `scratch` when that is given."""
    n = study.rows
    place, split = numpy.empty(n, numpy.uint16), numpy.empty(chunks(n), numpy.int32)
    whitened: Array = (
        numpy.empty((n, base.width), numpy.float32)
        if scratch is None
        else numpy.memmap(scratch, dtype=numpy.float32, mode="w+", shape=(n, base.width))
    )
    for k in range(chunks(n)):
        at = slice(k * CHUNK, min((k + 1) * CHUNK, n))
        order = numpy.argsort(-study.treatment[at], kind="stable")
        place[at] = order
        split[k] = int(numpy.count_nonzero(study.treatment[at]))
        whitened[at] = base.rows(study.confounders[at][order])
    return {
        "basis": whitened,
        "place": place,
        "split": split,
        "mean": base.mean,
        "rotation": base.rotation,
        "theta": found.theta,
        "inverse": numpy.linalg.inv(found.information),
    }


class Pieces:
    """The study in arranged pieces, in the precision of the work: float32 from the shared basis, float64 made again."""

    def __init__(self, study: Study, shared: Mapping[str, Any], precision: str) -> None:
        self.study, self.shared = study, shared
        self.dtype = numpy.dtype(numpy.float32 if precision == "fast" else numpy.float64)
        self.base = Basis(shared["mean"], shared["rotation"])
        self.width, self.count = self.base.width, chunks(study.rows)
        self._weight = weights_of(study)

    def at(self, k: int) -> slice:
        return slice(k * CHUNK, min((k + 1) * CHUNK, self.study.rows))

    def split(self, k: int) -> int:
        return int(self.shared["split"][k])

    def z(self, k: int) -> Array:
        at = self.at(k)
        if self.dtype == numpy.float32:
            return self.shared["basis"][at]
        return self.base.rows(self.study.confounders[at][self.shared["place"][at]])

    def column(self, values: Array, k: int) -> Array:
        """(m,) of values (n,) given row by row, as they stand in piece k."""
        at = self.at(k)
        return numpy.asarray(values[at][self.shared["place"][at]], self.dtype)

    def weight(self, k: int) -> Array:
        return self.column(self._weight, k)

    def treated(self, k: int) -> Array:
        out = numpy.zeros(self.at(k).stop - k * CHUNK, self.dtype)
        out[: self.split(k)] = 1
        return out

    def scratch(self, width: int = BATCH) -> Array:
        return numpy.empty((width, CHUNK), self.dtype)


def sized(scratch: Array, rows: int) -> Array:
    """The first `rows` columns as a contiguous matrix: compiled loops and BLAS want it so."""
    return scratch if rows == scratch.shape[1] else scratch.reshape(-1)[: scratch.shape[0] * rows].reshape(-1, rows)


class ArrangedCounts:
    """`Counts`, each piece in the order of `Pieces`; kept where small."""

    def __init__(self, pieces: Pieces, test: Weighing, seed: int, first: int, fraction: float) -> None:
        study = pieces.study
        self._counts = Counts(study.rows, test, seed, first, BATCH, fraction, study.clusters)
        self._pieces = pieces
        self._kept: list[Array] | None = None
        if BATCH * study.rows <= KEPT_BYTES:
            self._kept = [self._made(k) for k in range(pieces.count)]

    def _made(self, k: int) -> Array:
        return numpy.take(self._counts.chunk(k), self._pieces.shared["place"][self._pieces.at(k)], axis=1)

    def chunk(self, k: int) -> Array:
        return self._made(k) if self._kept is None else self._kept[k]


@numba.njit(cache=True)
def _arrange(row, place, b, out):  # type: ignore[no-untyped-def]
    """row (n,), a value for each row of the study, to where simulation b has it in the pieces that lie in `out` (BATCH n,)."""
    for begin in range(0, len(row), CHUNK):
        m = min(CHUNK, len(row) - begin)
        at = begin * BATCH + b * m
        for j in range(m):
            out[at + j] = row[begin + place[begin + j]]


def placebos(pieces: Pieces, seed: int, first: int) -> list[Array]:
    """A uint8 matrix (BATCH, m) for each piece: the permuted treatments of a batch, arranged."""
    study, place = pieces.study, numpy.asarray(pieces.shared["place"])
    source = Shuffler(study.treatment.astype(numpy.uint8), study.strata, study.clusters)
    row, out = numpy.empty(study.rows, numpy.uint8), numpy.empty(BATCH * study.rows, numpy.uint8)
    for b in range(BATCH):
        source.write(row, seed, first + b)
        _arrange(row, place, b, out)
    ends = [pieces.at(k).stop for k in range(pieces.count)]
    return [out[k * CHUNK * BATCH : end * BATCH].reshape(BATCH, -1) for k, end in enumerate(ends)]


def simulation_bytes(n: int, k: int, **options: Any) -> int:
    """Private peak of 50 simulations of the score, bytes; options: test, precision, clusters (how many). Measured: 1.1 to 1.6
    times less."""
    size = 8 if options.get("precision") == "exact" else 4
    clusters = int(options.get("clusters", 0))

    def kept(bytes_: int) -> int:
        return bytes_ if bytes_ <= KEPT_BYTES else 0

    drawn = kept(BATCH * n) + 2 * BATCH * clusters
    of_test = {
        "bootstrap": drawn + 12 * n,
        "subset": drawn + 12 * n,
        "placebo": BATCH * n + 32 * n,  # the permuted treatments are always kept
        "random_cause": kept(size * BATCH * n) + 12 * n,
    }
    most = of_test.get(options.get("test", ""), max(of_test.values()))
    return most + 6 * BATCH * CHUNK * size + 16 * BATCH * k * 8 + 3 * k * k * 8 + (3 << 20)


@dataclass(frozen=True, slots=True)
class Settled:
    """shift: (B, k) in the basis, from the start. step: (B, k), what the next round would have added. lost: (B,) simulations
    that did not settle (separated, or nearly): they are to be solved the plain way."""

    shift: Array
    step: Array
    lost: Array


def chord(
    gradient: Callable[[Array, bool], Array],
    solve: Callable[[Array], Array],
    shape: tuple[int, int],
    tolerance: float,
    *,
    earliest: int = 2,
) -> Settled:
    """Solve gradient(shift) = 0 for all simulations at once by steps solve(gradient): a Hessian that stays as it is.

    gradient(shift, last): (B, k); `last` says that the step it gives will likely be the last, so that the caller may work out on
    the same pass what it wants to know at `shift`: the last call before the return was made with last=True. tolerance: largest
    length of the last step in the metric of the Hessian, where one standard error in one direction is 1. The last step is given
    back instead of taken: its small effect on a functional is its derivative.
    """
    shift, lost = numpy.zeros(shape), numpy.zeros(shape[0], bool)
    sizes: list[float] = []
    for rounds in range(CHORD_ROUNDS):
        expected = numpy.inf if len(sizes) < 2 else sizes[-1] * min(sizes[-1] / max(sizes[-2], 1e-300), 1.0)
        last = rounds >= earliest and (rounds == CHORD_ROUNDS - 1 or expected <= tolerance or earliest < 2)
        slope = gradient(shift, last)
        step = solve(slope)
        length = numpy.sqrt(numpy.maximum((step * slope).sum(axis=1), 0.0))
        lost |= ~(length <= 1e3 * numpy.sqrt(shape[1]))  # also what is not a number
        shift[lost], step[lost], length[lost] = 0.0, 0.0, 0.0
        sizes.append(float(length.max()))
        if last and (sizes[-1] <= tolerance or rounds == CHORD_ROUNDS - 1):
            return Settled(shift, step, lost | (length > tolerance))
        shift += step
    raise AssertionError("the last round always returns")


@numba.njit(cache=True)
def to_decay(m, logit):  # type: ignore[no-untyped-def]
    """In place: minus the logit of each simulation and row, kept within +-FAR, from its distance m to `logit`."""
    far = logit.dtype.type(FAR)
    for b in range(m.shape[0]):
        row = m[b]
        for j in range(row.shape[0]):
            row[j] = min(max(-(row[j] + logit[j]), -far), far)


def decay(shift: Array, z: Array, logit: Array, out: Array) -> Array:
    """exp(-logit) of all simulations and rows of a piece: the score is 1 / (1 + it)."""
    if not shift.any():  # the first round
        out[:] = numpy.exp(numpy.clip(-logit, -FAR, FAR))
        return out
    numpy.matmul(shift, z.T, out=out)
    to_decay(out, logit)
    return numpy.exp(out, out=out)


@numba.njit(cache=True)
def add_cause(m, own, cause):  # type: ignore[no-untyped-def]
    """m[b, j] += own[b] * cause[b, j]"""
    for b in range(m.shape[0]):
        row, u = m[b], cause[b]
        for j in range(row.shape[0]):
            row[j] += own[b] * u[j]


def decay_with(shift: Array, z: Array, own: Array, cause: Array, logit: Array, out: Array) -> Array:
    """`decay` with a further column `cause` (B, m) whose coefficients are `own` (B,)."""
    if not own.any():
        return decay(shift, z, logit, out)
    numpy.matmul(shift, z.T, out=out)
    add_cause(out, own, cause)
    to_decay(out, logit)
    return numpy.exp(out, out=out)


class Border:
    """The Hessian of the full fit with one more column, of each simulation's own: random causes first .. first + BATCH - 1."""

    def __init__(self, pieces: Pieces, first: int, seed: int) -> None:
        self._inverse, self._first, self._seed = pieces.shared["inverse"], first, seed
        self._kept: list[Array] = []
        edge, corner = numpy.zeros((BATCH, pieces.width)), numpy.zeros(BATCH)
        room, product = pieces.scratch(), pieces.scratch()
        for k in range(pieces.count):
            score = expit(pieces.column(pieces.shared["logits"], k))
            cause, work = sized(room, len(score)), sized(product, len(score))
            self.causes(pieces, k, cause)
            numpy.multiply(cause, pieces.weight(k) * score * (1 - score), out=work)
            edge += work @ pieces.z(k)
            corner += numpy.einsum("bj,bj->b", work, cause)
        self._known = edge @ self._inverse
        self._schur = corner - (edge * self._known).sum(axis=1)

    def causes(self, pieces: Pieces, k: int, out: Array) -> None:
        """out (B, m): the random causes as they stand in piece k."""
        if k < len(self._kept):
            out[:] = self._kept[k]
            return
        drawn = numpy.empty(out.shape, out.dtype)
        normals("random_cause", self._seed, self._first, k, drawn)
        numpy.take(drawn, pieces.shared["place"][pieces.at(k)], axis=1, out=out)
        if k == len(self._kept) and BATCH * pieces.study.rows * out.itemsize <= KEPT_BYTES:
            self._kept.append(out.copy())

    def solve(self, slope: Array) -> Array:
        """Inverse of the bordered Hessian times slope (B, k + 1)."""
        own = (slope[:, -1] - (slope[:, :-1] * self._known).sum(axis=1)) / self._schur
        return numpy.column_stack([slope[:, :-1] @ self._inverse - self._known * own[:, None], own])


@numba.njit(cache=True)
def residuals(odds, counts, weight, split, out):  # type: ignore[no-untyped-def]
    """out = counts * weight * (treatment - score), treated rows first. odds: exp(-logit)."""
    one = weight.dtype.type(1)
    for b in range(odds.shape[0]):
        e, c, o = odds[b], counts[b], out[b]
        for j in range(split):
            o[j] = weight[j] * c[j] * (one - one / (one + e[j]))
        for j in range(split, e.shape[0]):
            o[j] = -(weight[j] * c[j]) * (one / (one + e[j]))


@numba.njit(cache=True)
def placebo_residuals(odds, treated, weight, out):  # type: ignore[no-untyped-def]
    """out = weight * (treated - score) for treatments of each simulation's own."""
    one = weight.dtype.type(1)
    for b in range(odds.shape[0]):
        e, t, o = odds[b], treated[b], out[b]
        for j in range(e.shape[0]):
            o[j] = weight[j] * (t[j] - one / (one + e[j]))


@numba.njit(cache=True)
def times(counts, values, out):  # type: ignore[no-untyped-def]
    """out[b, j] = counts[b, j] * values[j]"""
    for b in range(counts.shape[0]):
        c, o = counts[b], out[b]
        for j in range(c.shape[0]):
            o[j] = c[j] * values[j]


Visit = Callable[[int, Array, Array, Array], None]
"""visit(k, z, odds, work) on the last pass over the pieces, at the shift that is returned: work (B, m) may be overwritten."""


def settle_resampled(
    pieces: Pieces, drawn: ArrangedCounts, scale: float, tolerance: float, visit: Visit | None = None
) -> Settled:
    """Scores under the weights of `drawn`; the start is the full fit, whose Hessian times `scale` is expected."""
    shared, dtype = pieces.shared, pieces.dtype
    decay_room, work_room = pieces.scratch(), pieces.scratch()

    def gradient(shift: Array, last: bool) -> Array:
        slope, narrow = numpy.zeros(shift.shape), shift.astype(dtype)
        for k in range(pieces.count):
            z, logit, c, split = pieces.z(k), pieces.column(shared["logits"], k), drawn.chunk(k), pieces.split(k)
            odds, work = sized(decay_room, len(logit)), sized(work_room, len(logit))
            decay(narrow, z, logit, odds)
            residuals(odds, c, pieces.weight(k), split, work)
            slope += work @ z
            if last and visit is not None:
                visit(k, z, odds, work)
        return slope

    return chord(gradient, lambda slope: slope @ shared["inverse"] / scale, (BATCH, pieces.width), tolerance)


def settle_placebo(pieces: Pieces, drawn: list[Array], tolerance: float, visit: Visit | None = None) -> Settled:
    """Scores of permuted treatments. The start is one score for all rows (`placebo_start`); the Hessian is a multiple of 1.

    What the treatments contribute to the gradient is the same in every round. Rounds before the last take the score's cubic in
    the distance from the start, which is small: only the last must be exact.
    """
    dtype = pieces.dtype
    start, curvature = placebo_start(pieces.study)
    share, total = float(expit(numpy.array(start))), float(weights_of(pieces.study).sum())
    decay_room, work_room = pieces.scratch(), pieces.scratch()
    begin = numpy.zeros((BATCH, pieces.width))
    begin[:, 0] -= share * total
    spread = share * (1 - share)
    cubic = numpy.array([spread, spread * (1 - 2 * share) / 2, spread * (1 - 6 * spread) / 6], dtype)

    def gradient(shift: Array, last: bool) -> Array:
        first, exact = not shift.any(), last or dtype == numpy.float64
        slope, narrow = numpy.zeros(shift.shape), shift.astype(dtype)
        for k in range(pieces.count):
            z, weight = pieces.z(k), pieces.weight(k)
            odds, work = sized(decay_room, len(z)), sized(work_room, len(z))
            if first:
                times(drawn[k], weight, work)
            elif exact:
                decay(narrow, z, numpy.full(len(z), start, dtype), odds)
                placebo_residuals(odds, drawn[k], weight, work)
            else:
                numpy.matmul(narrow, z.T, out=work)
                expanded(work, weight, cubic)
            slope += work @ z
            if last and visit is not None:
                visit(k, z, odds, work)
        if first:
            begin[:] += slope
        return slope if exact and not first else begin if first else begin - slope

    return chord(gradient, lambda slope: slope / curvature, (BATCH, pieces.width), tolerance)


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def expanded(m, weight, cubic):  # type: ignore[no-untyped-def]
    """In place: weight times (score - share), by its cubic in the distance m of the logit."""
    one, two, three = cubic[0], cubic[1], cubic[2]
    for b in range(m.shape[0]):
        row = m[b]
        for j in range(row.shape[0]):
            d = row[j]
            row[j] = weight[j] * d * (one + d * (two + d * three))


def placebo_start(study: Study) -> tuple[float, float]:
    """(logit of the treated share, the multiple of 1 that is the Hessian there)."""
    weight = weights_of(study)
    total = float(weight.sum())
    share = float(weight @ study.treatment) / total
    return float(numpy.log(share / (1 - share))), total * share * (1 - share)


def settle_widened(pieces: Pieces, border: Border, tolerance: float, visit: Visit | None = None) -> Settled:
    """Scores with one more column; `shift` (B, k + 1) has its coefficient last."""
    shared, dtype, width = pieces.shared, pieces.dtype, pieces.width
    decay_room, work_room, cause_room = pieces.scratch(), pieces.scratch(), pieces.scratch()
    once = numpy.ones((BATCH, CHUNK), numpy.uint8)

    def gradient(shift: Array, last: bool) -> Array:
        slope, known, own = numpy.zeros(shift.shape), shift[:, :width].astype(dtype), shift[:, width].astype(dtype)
        for k in range(pieces.count):
            z, logit = pieces.z(k), pieces.column(shared["logits"], k)
            m = len(logit)
            odds, work, cause = sized(decay_room, m), sized(work_room, m), sized(cause_room, m)
            border.causes(pieces, k, cause)
            decay_with(known, z, own, cause, logit, odds)
            residuals(odds, sized(once, m), pieces.weight(k), pieces.split(k), work)
            slope[:, :width] += work @ z
            slope[:, width] += numpy.einsum("bj,bj->b", work, cause)
            if last and visit is not None:
                visit(k, z, odds, work)
        return slope

    return chord(gradient, border.solve, (BATCH, width + 1), tolerance, earliest=1)


ARMS = {"ate": ((0.0, 1.0), (0.0, 1.0)), "att": ((1.0, 0.0), (-1.0, 1.0)), "atc": ((-1.0, 1.0), (1.0, 0.0))}
"""Weight of a treated row a + b / score and of an untreated row a + b / (1 - score), ((a, b), (a, b)) by target: inverse
probability for ate; 1 and the odds for att; the inverse odds and 1 for atc (Hirano, Imbens and Ridder 2003)."""


def arm_weights(scores: Array, trim: float, target: str) -> tuple[Array, Array, Array, Array]:
    """(weight if treated, weight if not, their derivatives by the logit): (n,) each. Scores are clipped to trim .. 1 - trim;
    where they are, the derivative is 0."""
    (a1, b1), (a0, b0) = ARMS[target]
    clipped = numpy.clip(scores, trim, 1 - trim)
    free = clipped == scores
    return (
        a1 + b1 / clipped,
        a0 + b0 / (1 - clipped),
        -b1 * free * (1 / clipped - 1),
        b0 * free * (1 / (1 - clipped) - 1),
    )


@numba.njit(cache=True)
def weigh_arms(odds, counts, weight, split, bounds, arms, out):  # type: ignore[no-untyped-def]
    """out = counts * weight * arm weight, treated rows first. bounds: (least, largest) inverse score after clipping; arms:
    (a1, b1, a0, b0) of `ARMS`, both in the precision of the work."""
    one = weight.dtype.type(1)
    low, high = bounds[0], bounds[1]
    a1, b1, a0, b0 = arms[0], arms[1], arms[2], arms[3]
    for b in range(odds.shape[0]):
        e, c, o = odds[b], counts[b], out[b]
        for j in range(split):
            o[j] = weight[j] * c[j] * (a1 + b1 * min(max(one + e[j], low), high))
        for j in range(split, e.shape[0]):
            o[j] = weight[j] * c[j] * (a0 + b0 * min(max(one + one / e[j], low), high))


def clip_bounds(trim: float, target: str, dtype: Any) -> tuple[Array, Array]:
    """`bounds` and `arms` of the kernels above."""
    return numpy.array([1 / (1 - trim), 1 / trim if trim > 0 else 1e30], dtype), numpy.array(
        sum(ARMS[target], ()), dtype
    )


@numba.njit(cache=True)
def add_to_clusters(values, codes, sums):  # type: ignore[no-untyped-def]
    """sums[b, codes[j]] += values[b, j]"""
    for b in range(values.shape[0]):
        row, total = values[b], sums[b]
        for j in range(row.shape[0]):
            total[codes[j]] += row[j]
