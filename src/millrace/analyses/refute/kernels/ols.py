"""Least squares: the effect of a treatment given confounders, and a thousand refutations of it for a few passes.

The effect is the treatment's coefficient in outcome ~ 1 + treatment + confounders, or, `interacted`, in
outcome ~ 1 + treatment + confounders + treatment x (confounders - their mean in the target population) (Lin 2013).
Everything that simulations share is computed once (`prepare`): a whitened basis in float32, and residuals. A simulation is
then the same number that a refit would give, to about 1e-6 of a standard error (`precision="exact"`: 1e-10), without one.

Does not choose tests or judge them. See also: `whiten` (the basis), `weighted` (bootstrap, subset), `placebo` (placebo,
random cause), `resample` (random numbers), `refit` here (the oracle of `simulate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy
from scipy.linalg import solve_triangular

from millrace.analyses.refute.kernels import placebo as made_up
from millrace.analyses.refute.kernels import weighted as weighted_rows
from millrace.analyses.refute.kernels.resample import CHUNK, KEPT_BYTES
from millrace.analyses.refute.kernels.whiten import (
    basis_rows,
    in_target,
    independent,
    stretches,
    whiten,
)
from millrace.analyses.refute.study import BATCH, Fit, Resampling, Study, Target
from millrace.run.errors import WrongQuestion

Array = numpy.ndarray[Any, Any]
Shared = Mapping[str, Any]
Errors = Literal["HC1", "HC3"]


def fit(study: Study, target: Target = "ate", *, interacted: bool = False, errors: Errors = "HC1") -> Fit:
    """The estimate from all rows.

    se: cluster-robust when the study has clusters (with the factors G/(G-1) (n-1)/(n-k) of statsmodels), else HC1 or HC3
    (MacKinnon and White 1985), whichever `errors` names. `interacted`: the influence of a row on the means of the target
    population counts too, as it does in a bootstrap. details: `dropped` (numbers of collinear confounders), `uncrossed`
    (those whose interaction is collinear), `parameters`, `max_leverage`, `se_hc1`, `se_hc3`, `se_conditional` (HC1, means
    taken as known), `error_sd`. WrongQuestion: see `whiten.whiten`.
    """
    whitened = whiten(study, target, interacted)
    whitener, coefficients = whitened.whitener(), whitened.coefficients()
    n, k = study.rows, whitened.regressors + 1
    own, error = whitened.triangle[-2, -2], whitened.triangle[-1, -1]
    crossed, kept = len(whitened.crossed), len(whitened.kept)
    places = numpy.searchsorted(whitened.kept, whitened.crossed)
    slopes = coefficients[kept : kept + crossed]
    members = _members(study, target) if crossed else 1.0
    plain = hc1 = hc3 = leverage = 0.0
    by_cluster = None if study.clusters is None else numpy.zeros(study.groups)
    for begin, end in stretches(n, k + 1):
        rows, whole = basis_rows(study, whitened, whitener, begin, end)
        residual = whole[:, -1] - whole[:, :-1] @ coefficients
        hat = numpy.einsum("rk,rk->r", rows, rows)
        influence = rows[:, 1] * residual / own
        shift = numpy.zeros(end - begin)
        if crossed:
            away = numpy.asarray(study.confounders[begin:end, whitened.crossed]) - whitened.target_centre[places]
            shift = in_target(study, target, begin, end) * (away @ slopes) / members
        plain += float(influence @ influence)
        hc1 += float(((influence + shift) ** 2).sum())
        hc3 += float(((influence / numpy.maximum(1.0 - hat, 1e-12) + shift) ** 2).sum())
        leverage = max(leverage, float(hat.max()))
        if by_cluster is not None:
            by_cluster += numpy.bincount(study.clusters[begin:end], influence + shift, len(by_cluster))  # type: ignore[index]
    named = {"HC1": float(numpy.sqrt(hc1 * n / (n - k))), "HC3": float(numpy.sqrt(hc3))}
    how, se = errors, named[errors]
    if by_cluster is not None:
        groups = len(by_cluster)
        how = "cluster"
        se = float(numpy.sqrt(by_cluster @ by_cluster * groups / max(groups - 1, 1) * (n - 1) / (n - k)))
    every = numpy.arange(study.confounders.shape[1])
    details = {
        "dropped": [int(j) for j in numpy.setdiff1d(every, whitened.kept)],
        "uncrossed": [int(j) for j in numpy.setdiff1d(whitened.kept, whitened.crossed)] if interacted else [],
        "parameters": k,
        "max_leverage": leverage,
        "se_hc1": named["HC1"],
        "se_hc3": named["HC3"],
        "se_conditional": float(numpy.sqrt(plain * n / (n - k))),
        "error_sd": float(error / numpy.sqrt(n - k)),
    }
    return Fit(float(coefficients[-1]), se, float(error / numpy.sqrt(n - k) / own), n - k, how, details)


def _members(study: Study, target: Target) -> float:
    return float(sum(in_target(study, target, begin, end).sum() for begin, end in stretches(study.rows, 1)))


def prepare(
    study: Study, target: Target = "ate", *, interacted: bool = False, scratch: str | None = None, **_: Any
) -> dict[str, Any]:
    """What all simulations share, by three passes over the data.

    basis: float32 (n, k), X'X = 1, columns [intercept, treatment, confounders, crossed], rows scaled by the root of their
    weight; in the file `scratch` when it is given (memory stays at a few stretches of rows however long the data), else in
    memory. residual, outcome_residual: float64 (n,), of the outcome on everything, and on intercept and confounders alone.
    The rest is small. Errors: as `fit`.
    """
    whitened = whiten(study, target, interacted)
    whitener, coefficients = whitened.whitener(), whitened.coefficients()
    n, k, kept = study.rows, whitened.regressors + 1, len(whitened.kept)
    triangle = whitened.triangle
    of_confounders = solve_triangular(triangle[:kept, :kept], triangle[:kept, -1])
    shape = (n, k)
    basis: Array = (
        numpy.empty(shape, numpy.float32)
        if scratch is None
        else numpy.memmap(scratch, dtype=numpy.float32, mode="w+", shape=shape)
    )
    residual, outcome_residual = numpy.empty(n), numpy.empty(n)
    heaviest = 0.0
    for begin, end in stretches(n, k + 1):
        rows, whole = basis_rows(study, whitened, whitener, begin, end)
        basis[begin:end] = rows
        residual[begin:end] = whole[:, -1] - whole[:, :-1] @ coefficients
        outcome_residual[begin:end] = whole[:, -1] - whole[:, :kept] @ of_confounders
        heaviest = max(heaviest, float((rows[:, 1] ** 2).max()))
    levels = numpy.unique(study.treatment)
    df = n - k
    squares = float(triangle[-1, -1] ** 2)
    return {
        **whitened.arrays(),
        "basis": basis,
        "residual": residual,
        "outcome_residual": outcome_residual,
        "whitener": whitener,
        "coefficients": coefficients,
        "levels": levels if len(levels) <= 256 else numpy.empty(0),
        "effect": float(coefficients[-1]),
        "se_classic": float(numpy.sqrt(squares / df) / triangle[-2, -2]),
        "error_squares": squares,
        "outcome_squares": float((triangle[kept:, -1] ** 2).sum()),
        "df": df,
        "confounder_count": study.confounders.shape[1],
        "heavy": int(heaviest > weighted_rows.HEAVY_TREATMENT),
    }


def simulate(
    study: Study,
    shared: Shared,
    test: Resampling,
    first: int,
    seed: int,
    *,
    target: Target = "ate",
    fraction: float = 0.8,
    precision: str = "fast",
    interacted: bool = False,
    placebo: made_up.Made = "permute",
    notes: list[str] | None = None,
    made: Any = weighted_rows.grams,
    **_: Any,
) -> Array:
    """float64 (BATCH, 2): effects and standard errors of simulations first .. first + BATCH - 1.

    Standard errors are classical, for placebo and random_cause; NaN for bootstrap and subset, whose spread is what they are
    made for. precision: `fast` (float32 products, to about 1e-6 of a standard error) or `exact` (1e-10, two to five times
    the time). A bootstrap or subset whose rows do not determine the effect is NaN. notes: a sentence is appended when
    simulations were solved in a slower way than planned. made: who makes Gram matrices (see `weighted.effects`).
    """
    if precision not in ("fast", "exact"):
        raise WrongQuestion(f"precision is 'fast' or 'exact', not {precision!r}.")
    if test == "placebo":
        if interacted:
            return made_up.interacted_placebo(study, shared, first, seed, placebo, target, precision)
        return made_up.placebo(study, shared, first, seed, placebo, precision)
    if test == "random_cause":
        return made_up.random_cause(study, shared, first, seed, target, precision)
    if test not in ("bootstrap", "subset"):
        raise WrongQuestion(f"Simulations are of bootstrap, subset, placebo or random_cause, not of {test!r}.")
    out = numpy.full((BATCH, 2), numpy.nan)
    out[:, 0] = weighted_rows.effects(
        study, shared, test, first, seed, target=target, fraction=fraction, precision=precision, notes=notes,
        made=made,
    )  # fmt: skip
    return out


def refit(
    study: Study,
    *,
    counts: Array | None = None,
    treatment: Array | None = None,
    column: Array | None = None,
    target: Target = "ate",
    interacted: bool = False,
    **_: Any,
) -> tuple[float, float]:
    """Effect and classical standard error by really resampling the rows and solving least squares (QR, then SVD): the oracle.

    counts: integer (n,), how often each row is there. treatment: in place of the study's. column: one more confounder.
    NaN, NaN when the rows do not determine the effect. Makes copies of the data.
    """
    t = study.treatment if treatment is None else treatment
    confounders = numpy.asarray(study.confounders)
    if column is not None:
        confounders = numpy.column_stack([confounders, column])
    taken = numpy.arange(study.rows) if counts is None else numpy.repeat(numpy.arange(study.rows), counts)
    w = numpy.ones(study.rows) if study.weights is None else study.weights
    kept = _columns(t, confounders, w, interacted)
    t, y, confounders, w = t[taken], study.outcome[taken], confounders[taken][:, kept[0]], w[taken]
    blocks = [numpy.ones((len(t), 1)), t[:, None], confounders]
    if interacted:
        member = w * {"ate": 1.0, "att": t, "atc": 1.0 - t}[target]
        mean = (member[:, None] * confounders).sum(0) / member.sum()
        blocks.append(t[:, None] * (confounders - mean)[:, kept[1]])
    design = numpy.concatenate(blocks, axis=1) * numpy.sqrt(w)[:, None]
    lengths = numpy.sqrt((design**2).sum(0))
    nothing = float("nan"), float("nan")
    if lengths[1] == 0:
        return nothing
    design /= numpy.where(lengths > 0, lengths, 1.0)
    triangle = numpy.linalg.qr(numpy.column_stack([design, numpy.sqrt(w) * y]), mode="r")
    k = design.shape[1]
    left, singular, right = numpy.linalg.svd(triangle[:k, :k])
    seen = singular > 1e-9 * singular[0]
    df = len(t) - int(seen.sum())
    if df < 1 or (right[~seen, 1] ** 2).sum() > 1e-8:
        return nothing
    solution = right[seen].T @ ((left.T @ triangle[:k, k])[seen] / singular[seen])
    error = numpy.sqrt(w) * y - design @ solution
    se = numpy.sqrt(error @ error / df * ((right[seen, 1] / singular[seen]) ** 2).sum())
    return float(solution[1] / lengths[1]), float(se / lengths[1])


def _columns(t: Array, confounders: Array, w: Array, interacted: bool) -> tuple[Array, Array]:
    """Confounders to keep, and places among them to cross, in the regression on all rows."""
    p, scale = confounders.shape[1], numpy.sqrt(w)[:, None]
    centred = confounders - numpy.average(confounders, axis=0, weights=w)
    moved = (t - numpy.average(t, weights=w))[:, None]
    columns = numpy.concatenate([moved, centred] + ([moved * centred] if interacted else []), axis=1)
    columns = (columns - numpy.average(columns, axis=0, weights=w)) * scale
    order = numpy.concatenate([numpy.arange(1, p + 1), [0], numpy.arange(p + 1, columns.shape[1])])
    lengths = numpy.r_[0.0, 1e-12 * abs(confounders).max(0), numpy.zeros(p)][: columns.shape[1]] * numpy.sqrt(len(t))
    left = independent(numpy.linalg.qr(columns, mode="r"), lengths, order)
    kept = left[(left > 0) & (left <= p)] - 1
    return kept, numpy.flatnonzero(numpy.isin(kept, left[left > p] - p - 1))


def partial_r2(shared: Shared) -> tuple[Array, Array]:
    """Partial R2 of every confounder with the treatment and with the outcome, each (p,), from the triangle alone.

    With the treatment: given all other confounders. With the outcome: given those and the treatment. Both in the regression
    without interactions. They are the benchmarks of Cinelli and Hazlett (2020): partial R2 = t^2 / (t^2 + df). NaN for a
    confounder that was dropped (it is made of the others, so nothing is left of it).
    """
    triangle, kept = shared["triangle"], len(shared["kept"])
    p = int(shared["confounder_count"])
    columns = numpy.r_[0:kept, len(triangle) - 2, len(triangle) - 1]
    small = numpy.linalg.qr(triangle[:, columns], mode="r") if len(columns) < len(triangle) else triangle
    out = []
    for regressors in (kept, kept + 1):  # the next column is what is explained
        inverse = solve_triangular(small[:regressors, :regressors], numpy.eye(regressors))
        coefficients = inverse @ small[:regressors, regressors]
        explained = coefficients**2 / (inverse**2).sum(1)
        left = (small[regressors : regressors + 1, regressors] ** 2).sum()
        every = numpy.full(p, numpy.nan)
        every[shared["kept"]] = (explained / (explained + left))[:kept]
        out.append(every)
    return out[0], out[1]


def memory(
    n: int,
    p: int,
    *,
    interacted: bool = False,
    binary: bool = True,
    clusters: int = 0,
    weighted: bool = False,
    precision: str = "fast",
    **_: Any,
) -> tuple[int, int]:
    """Bytes: private peak of one `simulate` (the largest of the tests) beside mapped arrays, and size of `shared`.

    binary: or a treatment with at most 256 values. clusters: how many there are, 0 for none. `prepare` with `scratch`
    has a peak of about 6 STRETCH_BYTES + 24 n.
    """
    k, number = 2 + p * (2 if interacted else 1), 8 if precision == "exact" else 4
    counts = BATCH * n if BATCH * n <= KEPT_BYTES else 0
    if clusters:
        counts = 2 * BATCH * clusters
    columns = 8 * n if weighted else 4 * n
    steps = BATCH * (8 * 12 * k + 4 * 4 * CHUNK + 16 * max(30, k // 2) + 8 * max(30, k // 2) * 4)
    item = 1 if binary else number
    held = (
        min(BATCH * item * n, made_up.HELD_BYTES) + (9 if binary else 8 + 2 * number) * n + (16 * n if clusters else 0)
    )
    of_basis = 32 if precision == "exact" else 8 if interacted else 0  # bytes of an element; mapped when it is 0
    inner = 4 * CHUNK * (BATCH * number * (4 if interacted else 1) + k * of_basis)
    alone = min(BATCH * 8 * (k + 1) ** 2, weighted_rows.ALONE_BYTES) + 24 * k * k + 24 * CHUNK * k
    peak = max(counts + (columns if interacted else 0) + steps, held + inner + 16 * BATCH * k, counts + alone)
    return peak + (1 << 20), n * (4 * k + 16) + 24 * k * k
