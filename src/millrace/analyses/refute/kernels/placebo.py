"""A treatment that nobody had, or a confounder that nobody had, in a least-squares regression.

With an orthonormal basis X of the intercept and the confounders, the effect of a permuted treatment t is
t'y~ / (t't - |X't|^2), where y~ is the outcome's residual on them (Frisch, Waugh and Lovell): inner products, one pass for
a batch. One more confounder changes the regression by a system of one or two unknowns. Only the permuted treatment of the
interacted regression needs a system of its own, 2(p + 1) unknowns, nearly the identity too: conjugate gradients.

Standard errors are the classical ones: what a placebo is studentised by (compare with `Fit.se_classic`). See also: `ols`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numba
import numpy

from millrace.analyses.refute.kernels.resample import CHUNK, Shuffler, chunks, normals
from millrace.analyses.refute.kernels.whiten import Whitened, basis_rows, root
from millrace.analyses.refute.study import BATCH, Study, Target
from millrace.run.errors import WrongQuestion

Array = numpy.ndarray[Any, Any]
Shared = Mapping[str, Any]
Made = Literal["permute", "regenerate"]

HELD_BYTES = 56 << 20
"""Permuted treatments that are held at a time: as many simulations as fit share a pass over the basis."""

STEPS = 60
"""Steps of the interacted placebo before its normal equations are solved one by one."""


@numba.njit(cache=True)
def _decode(codes, levels, out):  # type: ignore[no-untyped-def]
    for b in range(codes.shape[0]):
        row, made = codes[b], out[b]
        for r in range(row.shape[0]):
            made[r] = levels[row[r]]


class Rows:
    """Pieces of the basis, of a residual and of the row scale in float32 (stored) or float64 (made from the study)."""

    def __init__(self, study: Study, shared: Shared, precision: str) -> None:
        self.study, self.shared = study, shared
        self.dtype = numpy.float64 if precision == "exact" else numpy.float32
        self._whitened = Whitened.of(shared)

    def basis(self, begin: int, end: int) -> Array:
        if self.dtype == numpy.float32:
            return self.shared["basis"][begin:end]
        return basis_rows(self.study, self._whitened, self.shared["whitener"], begin, end)[0]

    def named(self, name: str, begin: int, end: int) -> Array:
        return self.shared[name][begin:end].astype(self.dtype)

    def root(self, begin: int, end: int) -> Array | None:
        scale = root(self.study, begin, end)
        return None if scale is None else scale.astype(self.dtype)


Maker = Callable[[int, int], Array]
"""(begin, end) of rows -> the made-up column of some simulations, (some, rows), not scaled by weights. Rows begin at a
multiple of CHUNK."""


def _treatments(
    study: Study, shared: Shared, dtype: Any, first: int, seed: int, made: Made
) -> Iterator[tuple[slice, Maker]]:
    """The placebo treatments less the mean of the treatment, for some simulations of the batch after the others."""
    mean = shared["treatment_mean"]
    if made == "regenerate":
        if study.binary:
            raise WrongQuestion(
                "Only a treatment that is not binary can be regenerated: permute it (placebo='permute')."
            )
        spread = float(numpy.std(study.treatment))
        centre = float(numpy.mean(study.treatment)) - mean

        def fresh(begin: int, end: int) -> Array:
            out = numpy.empty((BATCH, end - begin), numpy.float32)
            _normals("regenerated", seed, first, begin, out)
            return centre + spread * out.astype(dtype)

        yield slice(0, BATCH), fresh
        return
    levels = shared["levels"]
    coded = len(levels) > 0
    values = (
        numpy.searchsorted(levels, study.treatment).astype(numpy.uint8)
        if coded
        else (study.treatment - mean).astype(dtype)
    )
    shuffler = Shuffler(values, study.strata, study.clusters)
    some = int(min(BATCH, max(1, HELD_BYTES // values.nbytes)))
    held = numpy.empty((some, study.rows), values.dtype)
    centred = (levels - mean).astype(dtype)
    for begin in range(0, BATCH, some):
        which = slice(begin, min(BATCH, begin + some))
        for place, b in enumerate(range(which.start, which.stop)):
            shuffler.write(held[place], seed, first + b)
        block = held[: which.stop - which.start]

        def shuffled(begin: int, end: int, block: Array = block) -> Array:
            if not coded:
                return block[:, begin:end].copy()
            out = numpy.empty((len(block), end - begin), dtype)
            _decode(block[:, begin:end], centred, out)
            return out

        yield which, shuffled


def _normals(kind: Literal["random_cause", "regenerated"], seed: int, first: int, begin: int, out: Array) -> None:
    for at in range(0, out.shape[1], CHUNK):
        normals(kind, seed, first, (begin + at) // CHUNK, out[:, at : at + CHUNK])


def _pieces(rows: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Begin and end of `pieces` pieces of CHUNK rows at a time."""
    for begin in range(0, chunks(rows) * CHUNK, pieces * CHUNK):
        yield begin, min(rows, begin + pieces * CHUNK)


def placebo(study: Study, shared: Shared, first: int, seed: int, made: Made, precision: str) -> Array:
    """float64 (BATCH, 2): effects and standard errors with a treatment that was permuted (or regenerated)."""
    rows, k = Rows(study, shared, precision), shared["basis"].shape[1]
    out = numpy.empty((BATCH, 2))
    for which, make in _treatments(study, shared, rows.dtype, first, seed, made):
        size = which.stop - which.start
        on_basis, on_outcome, squares = numpy.zeros((size, k)), numpy.zeros(size), numpy.zeros(size)
        for begin, end in _pieces(study.rows, 4):
            block, scale = make(begin, end), rows.root(begin, end)
            if scale is not None:
                block *= scale
            on_basis += block @ rows.basis(begin, end)
            on_outcome += block @ rows.named("outcome_residual", begin, end)
            squares += numpy.einsum("br,br->b", block, block)
        on_basis[:, 1] = 0.0  # the true treatment is not in this regression
        own = squares - (on_basis**2).sum(1)
        out[which, 0] = on_outcome / own
        left = shared["outcome_squares"] - on_outcome**2 / own
        out[which, 1] = numpy.sqrt(numpy.maximum(left, 0.0) / shared["df"] / own)
    return out


def random_cause(study: Study, shared: Shared, first: int, seed: int, target: Target, precision: str) -> Array:
    """float64 (BATCH, 2): effects and standard errors with one more confounder, a standard normal column u.

    Without interactions one column is added. With them two, u and treatment x (u - its mean in the target population); the
    second is added as (treatment - mean) x u, which spans the same, and the effect is read at that mean of u.
    """
    rows, k, crossed = Rows(study, shared, precision), shared["basis"].shape[1], len(shared["crossed"]) > 0
    added = 2 if crossed else 1
    on_basis = numpy.zeros((added, BATCH, k))
    on_error, products = numpy.zeros((added, BATCH)), numpy.zeros((added, added, BATCH))
    for begin, end in _pieces(study.rows, 1):
        u = numpy.empty((BATCH, end - begin), rows.dtype)
        _normals("random_cause", seed, first, begin, u)
        scale = rows.root(begin, end)
        if scale is not None:
            u *= scale
        columns = [u, u * (study.treatment[begin:end] - shared["treatment_mean"]).astype(rows.dtype)][:added]
        basis, error = rows.basis(begin, end), rows.named("residual", begin, end)
        for i, column in enumerate(columns):
            on_basis[i] += column @ basis
            on_error[i] += column @ error
            for j in range(i + 1):
                products[i, j] += numpy.einsum("br,br->b", column, columns[j])
    products[0, -1] = products[-1, 0]
    own = products.transpose(2, 0, 1) - numpy.einsum("ibk,jbk->bij", on_basis, on_basis)
    return _with_more(shared, on_basis, on_error.T, own, target)


def _with_more(shared: Shared, on_basis: Array, on_error: Array, own: Array, target: Target) -> Array:
    """Effect and error of the regression with columns V more: own (B, a, a) = V'MV, on_error (B, a) = V'e."""
    reach = 1.0 / shared["triangle"][-2, -2]
    added = numpy.linalg.solve(own, on_error[:, :, None])[:, :, 0]
    wanted = -reach * on_basis[:, :, 1].T  # what a unit of each added coefficient changes the effect by
    if own.shape[1] == 2:
        wanted[:, 1] += _mean_of_cause(shared, on_basis, target)
    spare = (wanted * numpy.linalg.solve(own, wanted[:, :, None])[:, :, 0]).sum(1)
    squares = shared["error_squares"] - (on_error * added).sum(1)
    variance = numpy.maximum(squares, 0.0) / (shared["df"] - own.shape[1]) * (reach**2 + spare)
    return numpy.column_stack([shared["effect"] + (wanted * added).sum(1), numpy.sqrt(variance)])


def _mean_of_cause(shared: Shared, on_basis: Array, target: Target) -> Array:
    """(B,): mean of u in the target population."""
    total, treated = shared["weight_sum"], shared["treatment_mean"]
    everyone = on_basis[0, :, 0] / numpy.sqrt(total)
    if target == "ate":
        return everyone
    among_treated = on_basis[1, :, 0] / numpy.sqrt(total) + treated * everyone
    return among_treated / treated if target == "att" else (everyone - among_treated) / (1.0 - treated)


def interacted_placebo(
    study: Study, shared: Shared, first: int, seed: int, made: Made, target: Target, precision: str
) -> Array:
    """float64 (BATCH, 2): as `placebo`, in the regression with treatment x confounders.

    Unknowns: coefficients of [Q, tQ], where Q (n, K) is the orthonormal basis of intercept and confounders and t the
    placebo less its mean. Q'Q = 1, and the rest of the matrix is near diag(1, variance of t).
    """
    out = numpy.empty((BATCH, 2))
    rows = Rows(study, shared, precision)
    columns = numpy.r_[0, 2 : 2 + len(shared["kept"])]
    for which, make in _treatments(study, shared, rows.dtype, first, seed, made):
        out[which] = _interacted(rows, make, which.stop - which.start, columns, target)
    return out


def _interacted(rows: Rows, make: Maker, size: int, columns: Array, target: Target) -> Array:
    shared, n, dimension = rows.shared, rows.study.rows, len(columns)
    total, centre = shared["weight_sum"], numpy.sqrt(shared["weight_sum"])
    right, mean_place = numpy.zeros((size, 2 * dimension)), numpy.zeros((size, dimension))
    squares = numpy.zeros(size)
    for begin, end in _pieces(n, 4):
        t, q, scale = make(begin, end), rows.basis(begin, end)[:, columns], rows.root(begin, end)
        right[:, dimension:] += (t * rows.named("outcome_residual", begin, end)) @ q
        scaled = t if scale is None else t * scale
        mean_place += scaled @ q
        squares += numpy.einsum("br,br->b", scaled, scaled)
    functional = numpy.zeros((size, 2 * dimension))
    functional[:, dimension] = 1.0 / centre
    share = shared["treatment_mean"]
    if target != "ate":  # sums over the treated of the rows of Q: what t gives, and what its mean gives
        treated = mean_place[:, :1] * centre + share * total
        among = mean_place[:, 1:] if target == "att" else -mean_place[:, 1:]
        functional[:, dimension + 1 :] = among / (treated if target == "att" else total - treated)
    scales = numpy.ones((size, 2 * dimension))
    scales[:, dimension:] = (squares / total)[:, None]
    both, stuck = _pair_solve(rows, make, columns, numpy.stack([right, functional]), scales)
    for b in numpy.flatnonzero(stuck):
        both[:, b] = _dense(rows, make, int(b), columns, right[b], functional[b])
    left = shared["outcome_squares"] - (right * both[0]).sum(1)
    variance = numpy.maximum(left, 0.0) / (n - 2 * dimension) * (functional * both[1]).sum(1)
    return numpy.column_stack([(functional * both[0]).sum(1), numpy.sqrt(variance)])


def _pair_solve(rows: Rows, make: Maker, columns: Array, right: Array, scales: Array) -> tuple[Array, Array]:
    """A_b x = right[j, b] by conjugate gradients with the preconditioner `scales`; right, x: (2, B, 2K)."""
    x, residual = numpy.zeros_like(right), right.copy()
    direction = residual / scales
    product = (residual * direction).sum(2)
    start, step = product.copy(), 0
    bound = 1e-12 if rows.dtype == numpy.float32 else 1e-24
    while step < STEPS and (product > bound * start).any():
        step += 1
        image = _image(rows, make, columns, direction)
        length = product / numpy.maximum((direction * image).sum(2), 1e-300)
        x += length[:, :, None] * direction
        residual -= length[:, :, None] * image
        once = residual / scales
        following = (residual * once).sum(2)
        direction = once + (following / numpy.maximum(product, 1e-300))[:, :, None] * direction
        product = following
    return x, (product > bound * start).any(0)


def _image(rows: Rows, make: Maker, columns: Array, directions: Array) -> Array:
    """[Q, tQ]'[Q, tQ] directions; (2, B, 2K)."""
    two, size, double = directions.shape
    half = double // 2
    single, out = directions.astype(rows.dtype), numpy.zeros_like(directions)
    for begin, end in _pieces(rows.study.rows, 2):
        t, q = make(begin, end), numpy.ascontiguousarray(rows.basis(begin, end)[:, columns])
        fitted = (single.reshape(-1, half) @ q.T).reshape(two, size, 2, -1)
        fitted = fitted[:, :, 0] + t * fitted[:, :, 1]
        out[:, :, :half] += (fitted.reshape(two * size, -1) @ q).reshape(two, size, half)
        out[:, :, half:] += ((t * fitted).reshape(two * size, -1) @ q).reshape(two, size, half)
    return out


def _dense(rows: Rows, make: Maker, b: int, columns: Array, right: Array, functional: Array) -> Array:
    """(2, 2K): both systems of one simulation from its float64 normal equations; NaN when they do not determine it."""
    exact = Rows(rows.study, rows.shared, "exact")
    gram = numpy.zeros((len(right), len(right)))
    for begin, end in _pieces(rows.study.rows, 4):
        q, t = exact.basis(begin, end)[:, columns], make(begin, end)[b].astype(numpy.float64)
        block = numpy.concatenate([q, q * t[:, None]], axis=1)
        gram += block.T @ block
    eigenvalues, vectors = numpy.linalg.eigh(gram)
    seen = eigenvalues > 1e-10 * eigenvalues[-1]
    turned = numpy.stack([right, functional]) @ vectors
    if (turned[1, ~seen] ** 2).sum() > 1e-8 * (functional**2).sum():
        return numpy.full((2, len(right)), numpy.nan)
    return (turned[:, seen] / eigenvalues[seen]) @ vectors[:, seen].T
