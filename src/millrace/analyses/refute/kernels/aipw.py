"""Augmented inverse probability weighting: a linear regression of the outcome in each arm, and the weights of `ipw` on its
residuals. Right when either the propensity score or the regressions are (Robins, Rotnitzky and Zhao 1994; Glynn and Quinn 2010).

The standard error of `fit` is that of the stacked estimating equations (scores, both regressions, effect), which also holds when
one of the models is wrong; `refit` and `simulate` give the plain influence function, to which it is equal in the limit when they
are right, as under a placebo.

How 50 are done at once: counts never change the arms' rows, so the weighted regressions of all resamples are solved together by
conjugate gradients, with the Gram matrices of the full fit as preconditioner; a random cause has a closed form; under a placebo
the Gram matrices of both arms add up to n times the identity, so one Krylov space (Lanczos 1950) serves both. See also: `ipw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy

from millrace.analyses.refute.kernels import ipw
from millrace.analyses.refute.kernels import propensity as scores_
from millrace.analyses.refute.kernels.propensity import Array, Basis, Pieces, sized
from millrace.analyses.refute.kernels.resample import CHUNK
from millrace.analyses.refute.study import BATCH, Fit, Resampling, Study, Target
from millrace.run.errors import WrongQuestion

TOLERANCE = {"fast": 2e-2, "exact": 1e-9}
"""Of the propensity score, for `chord`: the effect does not depend on it to first order."""
REGRESSION_TOLERANCE = {"fast": 3e-4, "exact": 1e-11}
"""Of the regressions: residual of the normal equations, relative to where it began."""
SOLVER_ROUNDS = 40


def fit(study: Study, target: Target = "ate", *, trim: float = 0.01) -> Fit:
    """The doubly robust estimate from all rows; se: stacked estimating equations, by cluster where there are clusters.

    Raises `Separation`, WrongQuestion (an arm is empty, or too small or too uniform for its regression) and NotSupported
    (treatment not binary).
    """
    scores_.require_binary(study, "aipw")
    scores_.require_trim(trim)
    base = scores_.whitening(study)
    found = scores_.fit(study, base)
    grams, thetas = regressions(study, base)
    fitted = scores_.along(study, base, thetas.T)
    t, y, w = study.treatment, study.outcome, scores_.weights_of(study)
    effect, influence = _combined(t, y, w, found.scores, fitted, target, trim)
    up, down, up_slope, down_slope = scores_.arm_weights(found.scores, trim, target)
    inside = _membership(t, target)
    missed = y[:, None] - fitted
    size = float((w * inside).sum())
    slopes = numpy.stack(
        [
            w * (t * up_slope * missed[:, 0] - (1 - t) * down_slope * missed[:, 1]),
            w * (inside - t * up),
            -w * (inside - (1 - t) * down),
        ],
        axis=1,
    )
    derivative = scores_.moments(study, base, slopes) / size
    matrices = (found.information, grams[0], grams[1])
    reactions = numpy.stack([numpy.linalg.solve(m, d) for m, d in zip(matrices, derivative.T, strict=True)], axis=1)
    through = scores_.along(study, base, reactions)
    equations = numpy.stack([w * (t - found.scores), w * t * missed[:, 0], w * (1 - t) * missed[:, 1]], axis=1)
    se = scores_.robust_error(influence + (equations * through).sum(axis=1), study.clusters)
    details = {**ipw._details(study, found, target, trim), "se_plain": scores_.robust_error(influence, study.clusters)}
    return Fit(effect, se, float("nan"), study.rows - 2 * base.width, "stacked estimating equations", details)


def _membership(t: Array, target: Target) -> Array:
    return {"ate": numpy.ones(len(t)), "att": t, "atc": 1 - t}[target]


def _combined(
    t: Array, y: Array, w: Array, scores: Array, fitted: Array, target: Target, trim: float
) -> tuple[float, Array]:
    """(effect, influence of each row with nuisances as given). fitted: (n, 2), outcome predicted if treated and if not."""
    up, down, _, _ = scores_.arm_weights(scores, trim, target)
    inside = w * _membership(t, target)
    parts = inside * (fitted[:, 0] - fitted[:, 1])
    parts += w * (t * up * (y - fitted[:, 0]) - (1 - t) * down * (y - fitted[:, 1]))
    effect = float(parts.sum() / inside.sum())
    return effect, (parts - effect * inside) / inside.sum()


def regressions(study: Study, base: Basis) -> tuple[Array, Array]:
    """(Gram matrices (2, k, k), coefficients in the basis (2, k)) of the treated and of the untreated rows."""
    k, w = base.width, scores_.weights_of(study)
    grams, right = numpy.zeros((2, k, k)), numpy.zeros((2, k))
    for at in scores_.blocks(study.rows):
        z = base.rows(study.confounders[at])
        for arm, member in enumerate((study.treatment[at] > 0, study.treatment[at] == 0)):
            weighted = z[member] * w[at][member, None]
            grams[arm] += weighted.T @ z[member]
            right[arm] += weighted.T @ study.outcome[at][member]
    for arm, name in enumerate(("treated", "untreated")):
        values = numpy.linalg.eigvalsh(grams[arm])
        if values[0] <= 1e-9 * values[-1]:
            raise WrongQuestion(
                f"The outcome cannot be regressed on the {k - 1} confounders among the {name} rows: there are too "
                "few of them, or a confounder does not vary there (so nothing is known about the effect where it does). Drop or "
                "merge confounders, leave those rows out, or use estimator='ols'."
            )
    return grams, numpy.stack([numpy.linalg.solve(gram, r) for gram, r in zip(grams, right, strict=True)])


def refit(
    study: Study,
    *,
    counts: Array | None = None,
    treatment: Array | None = None,
    column: Array | None = None,
    target: Target = "ate",
    trim: float = 0.01,
) -> tuple[float, float]:
    """(effect, standard error) the plain way: logistic regression and two least squares on these rows, in float64."""
    t = study.treatment if treatment is None else treatment
    w = scores_.weights_of(study) * (1 if counts is None else counts)
    parts = [numpy.ones(study.rows), numpy.asarray(study.confounders), *([] if column is None else [column])]
    design = numpy.column_stack(parts)
    scores = scores_.refit(design, t, w)[1]
    fitted = numpy.empty((study.rows, 2))
    for arm, member in enumerate((t > 0, t == 0)):
        root = numpy.sqrt(w[member])
        solution = numpy.linalg.lstsq(design[member] * root[:, None], study.outcome[member] * root, rcond=None)[0]
        fitted[:, arm] = design @ solution
    effect, influence = _combined(t, study.outcome, w, scores, fitted, target, trim)
    if counts is not None:
        influence = influence / numpy.maximum(counts, 1)
    return effect, scores_.robust_error(influence, study.clusters, counts)


def prepare(study: Study, target: Target = "ate", *, trim: float = 0.01, scratch: str | None = None) -> dict[str, Any]:
    """What simulations share: `propensity.arrange`, the full fit's logits, the arms' regressions, residuals of each row in its
    own arm and in a regression without the treatment, and the effect's derivative by the score's coefficients."""
    scores_.require_binary(study, "aipw")
    scores_.require_trim(trim)
    base = scores_.whitening(study)
    found = scores_.fit(study, base)
    grams, thetas = regressions(study, base)
    fitted = scores_.along(study, base, thetas.T)
    t, y, w = study.treatment, study.outcome, scores_.weights_of(study)
    missed = y[:, None] - fitted
    inside = w * _membership(t, target)
    _, _, up_slope, down_slope = scores_.arm_weights(found.scores, trim, target)
    slope = w * (t * up_slope * missed[:, 0] - (1 - t) * down_slope * missed[:, 1])
    sums = scores_.moments(study, base, numpy.stack([slope, inside, w * y], axis=1))
    pooled = sums[:, 2] / w.sum()  # the basis is orthogonal
    return {
        **scores_.arrange(study, base, found, scratch),
        "logits": found.logits,
        "slope": sums[:, 0] / inside.sum(),
        "inside": sums[:, 1],
        "arm_theta": thetas,
        "arm_inverse": numpy.linalg.inv(grams),
        "missed": numpy.where(t > 0, missed[:, 0], missed[:, 1]),
        "pooled": y - scores_.along(study, base, pooled[:, None])[:, 0],
    }


def simulate(
    study: Study,
    shared: Mapping[str, Any],
    test: Resampling,
    first: int,
    seed: int,
    *,
    target: Target = "ate",
    fraction: float = 0.8,
    precision: str = "fast",
    trim: float = 0.01,
) -> Array:
    """float64 (BATCH, 2): effects and standard errors of simulations first .. first + BATCH - 1.

    Score and regressions are estimated anew in each. Standard errors for the placebo (plain influence function), NaN for the
    others. A simulation whose score cannot be estimated is NaN.
    """
    pieces = Pieces(study, shared, precision)
    if test in ("bootstrap", "subset"):
        out, lost = _resampled(pieces, test, first, seed, fraction, target, trim, precision)
    elif test == "placebo":
        out, lost = _placebo(pieces, first, seed, target, trim, precision)
    elif test == "random_cause":
        out, lost = _random_cause(pieces, first, seed, target, trim, precision)
    else:
        raise WrongQuestion(f"aipw has no simulation {test!r}; choose bootstrap, subset, placebo or random_cause.")
    for b in numpy.flatnonzero(lost):
        out[b] = ipw.plain(refit, study, test, first + int(b), seed, fraction, target=target, trim=trim)
        out[b, 1] = out[b, 1] if test == "placebo" else numpy.nan
    return out


class _Sums:
    """What the effects are made of apart from the regressions, at the scores of the last pass: arm weights times the basis, and
    arm weights times the residuals of the full fit."""

    def __init__(self, pieces: Pieces, counts_of: Any, target: Target, trim: float) -> None:
        self._weighted = numpy.zeros((2, BATCH, pieces.width))
        self._missed = numpy.zeros((2, BATCH))
        self._pieces, self._counts_of = pieces, counts_of
        self._bounds, self._arms = scores_.clip_bounds(trim, target, pieces.dtype)

    def visit(self, k: int, z: Array, odds: Array, work: Array) -> None:
        """Leaves the weights of the rows in `work`."""
        if k == 0:
            self._weighted[:], self._missed[:] = 0.0, 0.0
        pieces, split = self._pieces, self._pieces.split(k)
        missed = pieces.column(pieces.shared["missed"], k)
        scores_.weigh_arms(odds, self._counts_of(k), pieces.weight(k), split, self._bounds, self._arms, work)
        for arm, part in enumerate((slice(0, split), slice(split, len(z)))):
            self._weighted[arm] += work[:, part] @ z[part]
            self._missed[arm] += work[:, part] @ missed[part]

    def effects(self, changes: Array, inside: Array) -> Array:
        """(inside . (theta1 - theta0) + weighted residuals of the treated - of the untreated) / rows inside: (B,).

        changes: (2, B, k), what each simulation adds to the regressions of the full fit. inside: (B, k), sum of the basis over
        the target population.
        """
        thetas = self._pieces.shared["arm_theta"]
        grown = numpy.einsum("bk,bk->b", inside, thetas[0] + changes[0] - thetas[1] - changes[1])
        residual = self._missed - numpy.einsum("abk,abk->ab", self._weighted, changes)
        return (grown + residual[0] - residual[1]) / inside[:, 0]


def _resampled(
    pieces: Pieces, test: Any, first: int, seed: int, fraction: float, target: Target, trim: float, precision: str
) -> tuple[Array, Array]:
    shared = pieces.shared
    drawn = scores_.ArrangedCounts(pieces, test, seed, first, fraction)
    scale = fraction if test == "subset" else 1.0
    members, right = _right_sides(pieces, drawn)
    changes, unsolved = _solve_arms(
        pieces, drawn, right, shared["arm_inverse"] / scale, REGRESSION_TOLERANCE[precision]
    )
    sums = _Sums(pieces, drawn.chunk, target, trim)
    found = scores_.settle_resampled(pieces, drawn, scale, TOLERANCE[precision], sums.visit)
    out = numpy.full((BATCH, 2), numpy.nan)
    with numpy.errstate(
        invalid="ignore", divide="ignore", over="ignore"
    ):  # of lost simulations, which are solved the plain way
        out[:, 0] = sums.effects(changes, _inside(members, target)) + found.step @ shared["slope"]
    return out, found.lost | unsolved


def _inside(of_arms: Array, target: Target) -> Array:
    """Sum over the target population, given the sums over the treated and the untreated."""
    return {"ate": of_arms[0] + of_arms[1], "att": of_arms[0], "atc": of_arms[1]}[target]


def _right_sides(pieces: Pieces, drawn: scores_.ArrangedCounts) -> tuple[Array, Array]:
    """(sums of the basis over the rows of each arm, sums of the basis times the arm's residuals): (2, B, k) each."""
    members, right = numpy.zeros((2, BATCH, pieces.width)), numpy.zeros((2, BATCH, pieces.width))
    room = pieces.scratch()
    for k in range(pieces.count):
        z, weight, split, c = pieces.z(k), pieces.weight(k), pieces.split(k), drawn.chunk(k)
        work = sized(room, len(z))
        parts = (slice(0, split), slice(split, len(z)))
        for values, sums in ((weight, members), (weight * pieces.column(pieces.shared["missed"], k), right)):
            scores_.times(c, values, work)
            for arm, part in enumerate(parts):
                sums[arm] += work[:, part] @ z[part]
    return members, right


@numba.njit(cache=True)
def weigh(m, counts, weight):  # type: ignore[no-untyped-def]
    """m *= counts * weight"""
    for b in range(m.shape[0]):
        row, c = m[b], counts[b]
        for j in range(row.shape[0]):
            row[j] *= weight[j] * c[j]


def _solve_arms(
    pieces: Pieces, drawn: scores_.ArrangedCounts, right: Array, inverse: Array, tolerance: float
) -> tuple[Array, Array]:
    """(solutions (2, B, k), which simulations did not converge) of both arms' weighted normal equations."""
    room = pieces.scratch()

    def product(direction: Array) -> Array:
        out, narrow = numpy.zeros(direction.shape), direction.astype(pieces.dtype)
        for k in range(pieces.count):
            z, weight, split, c = pieces.z(k), pieces.weight(k), pieces.split(k), drawn.chunk(k)
            work = sized(room, len(z))
            parts = (slice(0, split), slice(split, len(z)))
            for arm, part in enumerate(parts):
                numpy.matmul(narrow[arm], z[part].T, out=work[:, part])
            weigh(work, c, weight)
            for arm, part in enumerate(parts):
                out[arm] += work[:, part] @ z[part]
        return out

    return _conjugate(product, right, lambda r: numpy.matmul(r, inverse), tolerance)


def _conjugate(
    product: Callable[[Array], Array], right: Array, precondition: Callable[[Array], Array], tolerance: float
) -> tuple[Array, Array]:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952) over the last axis, all systems side by side."""
    solution, residual = numpy.zeros(right.shape), right.copy()
    ready = precondition(residual)
    direction, length = ready, (residual * ready).sum(axis=-1)
    begin, unsolved = length, length > 0
    for _ in range(SOLVER_ROUNDS):
        if not unsolved.any():
            break
        image = product(direction)
        with numpy.errstate(divide="ignore", invalid="ignore", over="ignore"):
            stride = numpy.where(unsolved, length / (direction * image).sum(axis=-1), 0.0)[..., None]
            stride = numpy.where(numpy.isfinite(stride), stride, 0.0)
            solution, residual = solution + stride * direction, residual - stride * image
            ready = precondition(residual)
            before, length = length, (residual * ready).sum(axis=-1)
            direction = ready + numpy.where(unsolved, length / before, 0.0)[..., None] * direction
        # Systems that are solved stand still: their bits do not depend on how long others in the batch take.
        unsolved = unsolved & ~(length <= tolerance**2 * begin)
    return solution, unsolved.any(axis=0)


def _random_cause(
    pieces: Pieces, first: int, seed: int, target: Target, trim: float, precision: str
) -> tuple[Array, Array]:
    """One more column u in the score (see `ipw`) and in both regressions (whose Gram matrices are bordered)."""
    shared, k = pieces.shared, pieces.width
    border = scores_.Border(pieces, first, seed)
    changes, own, totals = _bordered_arms(pieces, border)
    once = numpy.ones((BATCH, CHUNK), numpy.uint8)
    sums = _Sums(pieces, lambda piece: sized(once, pieces.at(piece).stop - piece * CHUNK), target, trim)
    caused, room = numpy.zeros((2, BATCH)), pieces.scratch()

    def visit(piece: int, z: Array, odds: Array, work: Array) -> None:
        if piece == 0:
            caused[:] = 0.0
        sums.visit(piece, z, odds, work)
        cause, split = sized(room, len(z)), pieces.split(piece)
        border.causes(pieces, piece, cause)
        for arm, part in enumerate((slice(0, split), slice(split, len(z)))):
            caused[arm] += numpy.einsum("bj,bj->b", work[:, part], cause[:, part])

    found = scores_.settle_widened(pieces, border, TOLERANCE[precision], visit)
    inside = numpy.broadcast_to(shared["inside"], (BATCH, k))
    out = numpy.full((BATCH, 2), numpy.nan)
    out[:, 0] = sums.effects(changes, inside) + found.step[:, :k] @ shared["slope"]
    out[:, 0] += (_inside(totals, target) * (own[0] - own[1]) - caused[0] * own[0] + caused[1] * own[1]) / inside[:, 0]
    return out, found.lost


def _bordered_arms(pieces: Pieces, border: scores_.Border) -> tuple[Array, Array, Array]:
    """(change of the coefficients (2, B, k), coefficient of the cause (2, B), sum of the cause (2, B)) in each arm, exactly:
    the cause is first regressed on the others (Frisch and Waugh 1933; Lovell 1963)."""
    edge = numpy.zeros((2, BATCH, pieces.width))
    corner, right, total = numpy.zeros((2, BATCH)), numpy.zeros((2, BATCH)), numpy.zeros((2, BATCH))
    room, product = pieces.scratch(), pieces.scratch()
    for k in range(pieces.count):
        z, weight, split = pieces.z(k), pieces.weight(k), pieces.split(k)
        missed = pieces.column(pieces.shared["missed"], k)
        cause, work = sized(room, len(z)), sized(product, len(z))
        border.causes(pieces, k, cause)
        numpy.multiply(cause, weight, out=work)
        for arm, part in enumerate((slice(0, split), slice(split, len(z)))):
            edge[arm] += work[:, part] @ z[part]
            corner[arm] += numpy.einsum("bj,bj->b", work[:, part], cause[:, part])
            right[arm] += work[:, part] @ missed[part]
            total[arm] += work[:, part].sum(axis=1)
    known = numpy.matmul(edge, pieces.shared["arm_inverse"])
    own = right / (corner - (edge * known).sum(axis=-1))
    return -known * own[..., None], own, total


def _placebo(pieces: Pieces, first: int, seed: int, target: Target, trim: float, precision: str) -> tuple[Array, Array]:
    study, shared, dtype = pieces.study, pieces.shared, pieces.dtype
    drawn = scores_.placebos(pieces, seed, first)
    total = float(scores_.weights_of(study).sum())
    changes, unsolved = _placebo_arms(pieces, drawn, total, REGRESSION_TOLERANCE[precision])
    narrow = changes.astype(dtype)
    bounds, arms = scores_.clip_bounds(trim, target, dtype)
    rooms, sums = (pieces.scratch(), pieces.scratch()), numpy.zeros((BATCH, 5))
    clusters = None if study.clusters is None else numpy.zeros((2, BATCH, study.groups))
    members = numpy.array({"ate": (1, 1), "att": (1, 0), "atc": (0, 1)}[target], dtype)

    def visit(k: int, z: Array, odds: Array, work: Array) -> None:
        if k == 0:
            sums[:] = 0.0
            if clusters is not None:
                clusters[:] = 0.0
        above, below = (sized(room, len(z)) for room in rooms)
        numpy.matmul(narrow[0], z.T, out=above)
        numpy.matmul(narrow[1], z.T, out=below)
        missed = pieces.column(shared["pooled"], k)
        placebo_parts(odds, drawn[k], pieces.weight(k), missed, bounds, arms, members, above, below, sums)
        if clusters is not None:
            codes = numpy.asarray(study.clusters[pieces.at(k)])[shared["place"][pieces.at(k)]]
            scores_.add_to_clusters(above, codes, clusters[0])
            scores_.add_to_clusters(below, codes, clusters[1])

    found = scores_.settle_placebo(pieces, drawn, TOLERANCE[precision], visit)
    return _with_errors(sums, clusters, study.rows), found.lost | unsolved


def _with_errors(sums: Array, clusters: Array | None, n: int) -> Array:
    """Effects and errors from sums over rows of (part, inside, part^2, part inside, inside^2), or by cluster."""
    out = numpy.empty((BATCH, 2))
    out[:, 0] = effect = sums[:, 0] / sums[:, 1]
    if clusters is None:
        groups, squares = n, sums[:, 2] - 2 * effect * sums[:, 3] + effect**2 * sums[:, 4]
    else:
        groups, squares = clusters.shape[2], ((clusters[0] - effect[:, None] * clusters[1]) ** 2).sum(axis=1)
    out[:, 1] = numpy.sqrt(groups / (groups - 1) * squares) / sums[:, 1]
    return out


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def placebo_parts(odds, treated, weight, missed, bounds, arms, inside, above, below, sums):  # type: ignore[no-untyped-def]
    """sums (B, 5) of `_with_errors`; above, below: in, what the regression of an arm adds; out, part and membership of a row."""
    one, zero = weight.dtype.type(1), weight.dtype.type(0)
    low, high = bounds[0], bounds[1]
    a1, b1, a0, b0 = arms[0], arms[1], arms[2], arms[3]
    for b in range(odds.shape[0]):
        e, t, first, second = odds[b], treated[b], above[b], below[b]
        s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero
        for j in range(e.shape[0]):
            up, down = min(max(one + e[j], low), high), min(max(one + one / e[j], low), high)
            yes = t[j] * weight[j]
            no = weight[j] - yes
            member = yes * inside[0] + no * inside[1]
            part = member * (first[j] - second[j])
            part += yes * (a1 + b1 * up) * (missed[j] - first[j]) - no * (a0 + b0 * down) * (missed[j] - second[j])
            first[j], second[j] = part, member
            s0 += part
            s1 += member
            s2 += part * part
            s3 += part * member
            s4 += member * member
        sums[b, 0] += s0
        sums[b, 1] += s1
        sums[b, 2] += s2
        sums[b, 3] += s3
        sums[b, 4] += s4


def _placebo_arms(pieces: Pieces, drawn: list[Array], total: float, tolerance: float) -> tuple[Array, Array]:
    """(change of the regression without treatment in each arm (2, B, k), which simulations did not converge).

    With G the Gram matrix of the treated, r the basis times their residuals: G x1 = r, and, as all rows together have the
    Gram matrix total * 1 and residuals orthogonal to the basis, (total - G) x0 = -r: one Krylov space, of G and r, has both.
    """
    room, dtype = pieces.scratch(), pieces.dtype
    right = numpy.zeros((BATCH, pieces.width))
    for k in range(pieces.count):
        z = pieces.z(k)
        work = sized(room, len(z))
        scores_.times(drawn[k], pieces.weight(k) * pieces.column(pieces.shared["pooled"], k), work)
        right += work @ z

    def product(direction: Array) -> Array:
        out, narrow = numpy.zeros(direction.shape), direction.astype(dtype)
        for k in range(pieces.count):
            z = pieces.z(k)
            work = sized(room, len(z))
            numpy.matmul(narrow, z.T, out=work)
            weigh(work, drawn[k], pieces.weight(k))
            out += work @ z
        return out

    return _krylov(product, right, total, tolerance)


def _krylov(product: Callable[[Array], Array], right: Array, total: float, tolerance: float) -> tuple[Array, Array]:
    """Solutions (2, B, k) of G x1 = right and (total - G) x0 = -right by Lanczos with full reorthogonalisation."""
    size, width = right.shape
    length = numpy.sqrt((right**2).sum(axis=1))
    vectors = numpy.zeros((size, 0, width))
    current = right / numpy.maximum(length, 1e-300)[:, None]
    rounds = min(SOLVER_ROUNDS, width)
    small = numpy.zeros((size, rounds, rounds))
    for m in range(rounds):
        vectors = numpy.concatenate([vectors, current[:, None, :]], axis=1)
        image = product(current)
        for _ in range(2):
            along = numpy.einsum("bmk,bk->bm", vectors, image)
            small[:, : m + 1, m] += along
            image -= numpy.einsum("bm,bmk->bk", along, vectors)
        rest = numpy.sqrt((image**2).sum(axis=1))
        block = small[:, : m + 1, : m + 1]
        begin = numpy.zeros((size, m + 1, 1))
        begin[:, 0, 0] = length
        # The last diagonal of an exhausted space may be 0 / 0; a system that is not solved then counts as lost.
        eye = numpy.eye(m + 1) * (total * 1e-12)
        first = numpy.linalg.solve(block + eye, begin)[..., 0]
        second = numpy.linalg.solve(numpy.eye(m + 1) * total - block + eye, -begin)[..., 0]
        error = rest * numpy.maximum(numpy.abs(first[:, m]), numpy.abs(second[:, m]))
        unsolved = ~(error <= tolerance * length)
        if not unsolved.any() or m == rounds - 1:
            break
        current = image / numpy.maximum(rest, 1e-300)[:, None]
        small[:, m + 1, m] = rest
    solutions = numpy.stack([numpy.einsum("bm,bmk->bk", s, vectors) for s in (first, second)])
    return solutions, unsolved & (m + 1 < width)


def memory(n: int, p: int, **options: Any) -> tuple[int, int]:
    """(private peak of `simulate`, size of `prepare`'s result), bytes; see `ipw.memory`."""
    k = p + 1
    peak, size = ipw.memory(n, p, **options)
    return peak + 16 * BATCH * k * 8 + 8 * BATCH * int(options.get("clusters", 0)), size + 8 * 4 * k * k
