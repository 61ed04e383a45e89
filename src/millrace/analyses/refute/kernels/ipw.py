"""Inverse probability weighting: the effect as a difference of two weighted means, and 50 of it at once.

Weights are normalised inside each arm (Hajek; the stabilising factor P(treatment) of each arm cancels in that), propensity
scores come from a logistic regression with a constant and are clipped to trim .. 1 - trim. Standard errors come from the
influence function with the term of the estimated score (Lunceford and Davidian 2004, section 3; Newey and McFadden 1994,
section 6): with the score held fixed they, and a bootstrap, are far too large.

Does not model outcomes: see `aipw`. The logistic regressions of the simulations are `propensity.chord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy

from millrace.analyses.refute.kernels import propensity as scores_
from millrace.analyses.refute.kernels.propensity import Array, Basis, Pieces, sized
from millrace.analyses.refute.kernels.resample import CHUNK, column, counts, permuted
from millrace.analyses.refute.study import BATCH, Fit, Resampling, Study, Target
from millrace.run.errors import WrongQuestion

TOLERANCE = {"fast": 2e-3, "exact": 1e-9}
"""Of `chord`; the effect is then off by about 1e-5 of a standard error, or as far as float64 goes."""


def fit(study: Study, target: Target = "ate", *, trim: float = 0.01, basis: Basis | None = None) -> Fit:
    """Hajek's estimate from all rows. se: influence function with the estimated score, by cluster where there are clusters.

    Raises `Separation` and WrongQuestion (one arm empty), NotSupported (treatment not binary).
    """
    scores_.require_binary(study, "ipw")
    scores_.require_trim(trim)
    base = scores_.whitening(study) if basis is None else basis
    found = scores_.fit(study, base)
    effect, influence, _ = _with_influence(study, base, found, target, trim)
    se = scores_.robust_error(influence, study.clusters)
    return Fit(
        effect,
        se,
        float("nan"),
        study.rows - base.width - 1,
        "influence function, score estimated",
        _details(study, found, target, trim),
    )


def _details(study: Study, found: scores_.Propensity, target: Target, trim: float) -> dict[str, Any]:
    weight, treated = scores_.weights_of(study), study.treatment > 0
    up, down, _, _ = scores_.arm_weights(found.scores, trim, target)
    arms = (weight[treated] * up[treated], weight[~treated] * down[~treated])
    return {
        "trim": trim,
        "trimmed": int(numpy.count_nonzero((found.scores < trim) | (found.scores > 1 - trim))),
        "score_least": float(found.scores.min()),
        "score_largest": float(found.scores.max()),
        "effective_treated": float(arms[0].sum() ** 2 / (arms[0] ** 2).sum()),
        "effective_untreated": float(arms[1].sum() ** 2 / (arms[1] ** 2).sum()),
        "rounds": found.rounds,
    }


def _with_influence(
    study: Study, base: Basis, found: scores_.Propensity, target: Target, trim: float
) -> tuple[float, Array, Array]:
    """(effect, influence of each row on it, derivative of the effect by theta)."""
    t, y, w = study.treatment, study.outcome, scores_.weights_of(study)
    effect, plain, slope = _hajek(t, y, w, found.scores, target, trim)
    derivative = scores_.moments(study, base, slope[:, None])[:, 0]
    reaction = numpy.linalg.solve(found.information, derivative)
    influence = plain + w * (t - found.scores) * scores_.along(study, base, reaction[:, None])[:, 0]
    return effect, influence, derivative


def _hajek(t: Array, y: Array, w: Array, scores: Array, target: Target, trim: float) -> tuple[float, Array, Array]:
    """(effect, influence of each row with the scores as given, derivative of the effect by each row's logit)."""
    up, down, up_slope, down_slope = scores_.arm_weights(scores, trim, target)
    up, up_slope = w * t * up, w * t * up_slope
    down, down_slope = w * (1 - t) * down, w * (1 - t) * down_slope
    above, below = up @ y / up.sum(), down @ y / down.sum()
    influence = up * (y - above) / up.sum() - down * (y - below) / down.sum()
    slope = up_slope * (y - above) / up.sum() - down_slope * (y - below) / down.sum()
    return float(above - below), influence, slope


def refit(
    study: Study,
    *,
    counts: Array | None = None,
    treatment: Array | None = None,
    column: Array | None = None,
    target: Target = "ate",
    trim: float = 0.01,
) -> tuple[float, float]:
    """(effect, standard error) the plain way: a new logistic regression on these rows, in float64."""
    t = study.treatment if treatment is None else treatment
    w = scores_.weights_of(study) * (1 if counts is None else counts)
    parts = [numpy.ones(study.rows), numpy.asarray(study.confounders), *([] if column is None else [column])]
    design = numpy.column_stack(parts)
    scores = scores_.refit(design, t, w)[1]
    effect, plain, slope = _hajek(t, study.outcome, w, scores, target, trim)
    information = (design * (w * scores * (1 - scores))[:, None]).T @ design
    reaction = numpy.linalg.lstsq(information, design.T @ slope, rcond=None)[0]
    influence = plain + w * (t - scores) * (design @ reaction)
    if counts is not None:
        influence = influence / numpy.maximum(counts, 1)
    return effect, scores_.robust_error(influence, study.clusters, counts)


def prepare(study: Study, target: Target = "ate", *, trim: float = 0.01, scratch: str | None = None) -> dict[str, Any]:
    """What simulations share: `propensity.arrange`, the full fit's logits, the arms' means and the effect's derivative."""
    scores_.require_binary(study, "ipw")
    scores_.require_trim(trim)
    base = scores_.whitening(study)
    found = scores_.fit(study, base)
    effect, _, slope = _with_influence(study, base, found, target, trim)
    t, y, w = study.treatment, study.outcome, scores_.weights_of(study)
    up, down, _, _ = scores_.arm_weights(found.scores, trim, target)
    above, below = (w * t * up) @ y / (w * t * up).sum(), (w * (1 - t) * down) @ y / (w * (1 - t) * down).sum()
    return {
        **scores_.arrange(study, base, found, scratch),
        "logits": found.logits,
        "slope": slope,
        "effect": effect,
        "gaps": y - numpy.where(t > 0, above, below),
        "explained": _explained(study, base),
    }


def _explained(study: Study, base: Basis) -> Array:
    """(n,): the outcome's regression on the confounders, less its mean."""
    weight = scores_.weights_of(study)
    total = float(weight.sum())
    away = study.outcome - float(weight @ study.outcome) / total
    return scores_.along(study, base, scores_.moments(study, base, (weight * away)[:, None]) / total)[:, 0]


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

    The score is estimated anew in each. Standard errors for the placebo (with the mean placebo's reaction to the score,
    off by about k / n), NaN for the others. A simulation whose score cannot be estimated (separated
    rows in the resample) is NaN.
    """
    pieces = Pieces(study, shared, precision)
    if test in ("bootstrap", "subset"):
        out, lost = _resampled(pieces, test, first, seed, fraction, target, trim, TOLERANCE[precision])
    elif test == "placebo":
        out, lost = _placebo(pieces, first, seed, target, trim, TOLERANCE[precision])
    elif test == "random_cause":
        out, lost = _random_cause(pieces, first, seed, target, trim, TOLERANCE[precision])
    else:
        raise WrongQuestion(f"ipw has no simulation {test!r}; choose bootstrap, subset, placebo or random_cause.")
    for b in numpy.flatnonzero(lost):
        out[b] = plain(refit, study, test, first + int(b), seed, fraction, target=target, trim=trim)
        out[b, 1] = out[b, 1] if test == "placebo" else numpy.nan
    return out


def plain(
    solve: Any, study: Study, test: Resampling, i: int, seed: int, fraction: float, **options: Any
) -> tuple[float, float]:
    """Simulation i by an estimator's `refit`; NaN where treated and untreated rows of the resample are separated."""
    changed: dict[str, Any]
    if test in ("bootstrap", "subset"):
        changed = {"counts": counts(study.rows, test, seed, i, fraction=fraction, clusters=study.clusters)}  # type: ignore[arg-type]
    elif test == "placebo":
        changed = {"treatment": permuted(study.treatment, seed, i, strata=study.strata, clusters=study.clusters)}
    else:
        changed = {"column": column(study.rows, seed, i)}
    try:
        return solve(study, **changed, **options)
    except scores_.Separation:
        return float("nan"), float("nan")


class _Arms:
    """Weighted gaps and weights of both arms, (B, 4), at the scores of the last pass."""

    def __init__(self, pieces: Pieces, counts_of: Any, target: Target, trim: float) -> None:
        self.sums = numpy.zeros((BATCH, 4))
        self._pieces, self._counts_of = pieces, counts_of
        self._bounds, self._arms = scores_.clip_bounds(trim, target, pieces.dtype)

    def visit(self, k: int, z: Array, odds: Array, work: Array) -> None:
        if k == 0:
            self.sums[:] = 0.0
        pieces, split = self._pieces, self._pieces.split(k)
        scores_.weigh_arms(odds, self._counts_of(k), pieces.weight(k), split, self._bounds, self._arms, work)
        gap = pieces.column(pieces.shared["gaps"], k)
        columns = numpy.zeros((len(gap), 4), gap.dtype)
        columns[:split, 0], columns[:split, 1] = gap[:split], 1
        columns[split:, 2], columns[split:, 3] = gap[split:], 1
        self.sums += work @ columns

    def effects(self, step: Array) -> Array:
        shared, sums = self._pieces.shared, self.sums
        out = numpy.full((BATCH, 2), numpy.nan)
        with numpy.errstate(invalid="ignore", divide="ignore"):  # of lost simulations, which are solved the plain way
            out[:, 0] = (
                float(shared["effect"]) + sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3] + step @ shared["slope"]
            )
        return out


def _resampled(
    pieces: Pieces, test: Any, first: int, seed: int, fraction: float, target: Target, trim: float, tolerance: float
) -> tuple[Array, Array]:
    drawn = scores_.ArrangedCounts(pieces, test, seed, first, fraction)
    arms = _Arms(pieces, drawn.chunk, target, trim)
    found = scores_.settle_resampled(pieces, drawn, fraction if test == "subset" else 1.0, tolerance, arms.visit)
    return arms.effects(found.step), found.lost


def _random_cause(
    pieces: Pieces, first: int, seed: int, target: Target, trim: float, tolerance: float
) -> tuple[Array, Array]:
    once = numpy.ones((BATCH, CHUNK), numpy.uint8)
    arms = _Arms(pieces, lambda k: sized(once, pieces.at(k).stop - k * CHUNK), target, trim)
    found = scores_.settle_widened(pieces, scores_.Border(pieces, first, seed), tolerance, arms.visit)
    return arms.effects(found.step[:, : pieces.width]), found.lost


def _placebo(
    pieces: Pieces, first: int, seed: int, target: Target, trim: float, tolerance: float
) -> tuple[Array, Array]:
    study, dtype = pieces.study, pieces.dtype
    drawn = scores_.placebos(pieces, seed, first)
    weights = scores_.weights_of(study)
    gaps = study.outcome - float(weights @ study.outcome) / float(weights.sum())
    bounds, arms = scores_.clip_bounds(trim, target, dtype)
    sums, slope = numpy.zeros((BATCH, 4)), numpy.zeros((BATCH, pieces.width))
    squares, curvature = numpy.zeros((BATCH, 11)), scores_.placebo_start(study)[1]
    scale = float(weights.sum())  # so that squares are no tiny numbers
    reaction = -scale * numpy.asarray(pieces.shared["explained"]) / curvature

    def visit(k: int, z: Array, odds: Array, work: Array) -> None:
        if k == 0:
            sums[:], slope[:], squares[:] = 0.0, 0.0, 0.0
        weight, gap = pieces.weight(k), pieces.column(gaps, k)
        if study.clusters is None:
            placebo_squares(odds, drawn[k], weight, gap, pieces.column(reaction, k), bounds, arms, squares)
        placebo_sums(odds, drawn[k], weight, gap, bounds, arms, sums, work)
        slope[:] += work @ z

    found = scores_.settle_placebo(pieces, drawn, tolerance, visit)
    share = float(weights @ study.treatment)
    expected = {"ate": float(weights.sum()), "att": share, "atc": float(weights.sum()) - share}[target]
    slope /= expected  # the sum of the weights of either arm, up to 1 / sqrt(n)
    with numpy.errstate(invalid="ignore", divide="ignore"):  # of lost simulations, which are solved the plain way
        middles = sums[:, [0, 2]] / sums[:, [1, 3]]
        shares = 1 / sums[:, [1, 3]]
    out = numpy.empty((BATCH, 2))
    out[:, 0] = middles[:, 0] - middles[:, 1] + numpy.einsum("bk,bk->b", found.step, slope)
    if study.clusters is None:
        out[:, 1] = _error_of_squares(squares, scale, middles, shares, study.rows)
        return out, found.lost
    out[:, 1] = _placebo_errors(
        pieces, drawn, found.shift, slope, gaps, numpy.nan_to_num(middles), numpy.nan_to_num(shares), bounds, arms
    )
    return out, found.lost


def _error_of_squares(squares: Array, scale: float, middles: Array, shares: Array, n: int) -> Array:
    """(B,): root of the sum of (U (g - M1) / S1 - D (g - M0) / S0 + R)^2 from the sums of `placebo_squares`; R in 1 / scale."""
    out = squares[:, 10] / scale**2
    for arm, sign in ((0, 1.0), (1, -1.0)):
        s, m = squares[:, 5 * arm : 5 * arm + 5].T, middles[:, arm]
        out = out + shares[:, arm] ** 2 * (s[0] - 2 * m * s[1] + m**2 * s[2])
        out = out + sign * 2 * shares[:, arm] * (s[3] - m * s[4]) / scale
    return numpy.sqrt(numpy.maximum(out, 0.0) * n / (n - 1))


def _placebo_errors(
    pieces: Pieces,
    drawn: list[Array],
    shift: Array,
    slope: Array,
    gaps: Array,
    middles: Array,
    shares: Array,
    bounds: Array,
    arms: Array,
) -> Array:
    """A last pass: the influence of a row needs the arms' means and the effect's derivative by the score."""
    study, dtype = pieces.study, pieces.dtype
    start, curvature = scores_.placebo_start(study)
    groups = study.groups or study.rows
    squares, by_cluster = numpy.zeros(BATCH), numpy.zeros((BATCH, 0 if study.clusters is None else groups))
    decay_room, work_room = pieces.scratch(), pieces.scratch()
    shift_, inward, middles_, shares_ = (v.astype(dtype) for v in (shift, slope / curvature, middles, shares))
    for k in range(pieces.count):
        z, weight = pieces.z(k), pieces.weight(k)
        odds, work = sized(decay_room, len(z)), sized(work_room, len(z))
        scores_.decay(shift_, z, numpy.full(len(z), start, dtype), odds)
        numpy.matmul(inward, z.T, out=work)
        placebo_influence(odds, drawn[k], weight, pieces.column(gaps, k), bounds, arms, shares_, middles_, work)
        if study.clusters is None:
            squares += numpy.einsum("bj,bj->b", work, work)
        else:
            codes = numpy.asarray(study.clusters[pieces.at(k)])[pieces.shared["place"][pieces.at(k)]]
            scores_.add_to_clusters(work, codes, by_cluster)
    if study.clusters is not None:
        squares = (by_cluster**2).sum(axis=1)
    return numpy.sqrt(groups / (groups - 1) * squares)


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def placebo_sums(odds, treated, weight, gap, bounds, arms, sums, out):  # type: ignore[no-untyped-def]
    """sums (B, 4) += weighted gap and weight of the treated, then of the untreated; out: the derivative of
    (treated gap - untreated gap) by each row's logit."""
    one, zero = weight.dtype.type(1), weight.dtype.type(0)
    low, high = bounds[0], bounds[1]
    a1, b1, a0, b0 = arms[0], arms[1], arms[2], arms[3]
    for b in range(odds.shape[0]):
        e, t, o = odds[b], treated[b], out[b]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(e.shape[0]):
            up, down = one + e[j], one + one / e[j]
            inside = one if (up <= high and down <= high) else zero
            up, down = min(max(up, low), high), min(max(down, low), high)
            yes = t[j] * weight[j]
            no = weight[j] - yes
            o[j] = -inside * gap[j] * (yes * b1 * (up - one) + no * b0 * (down - one))
            up, down = yes * (a1 + b1 * up), no * (a0 + b0 * down)
            s0 += up * gap[j]
            s1 += up
            s2 += down * gap[j]
            s3 += down
        sums[b, 0] += s0
        sums[b, 1] += s1
        sums[b, 2] += s2
        sums[b, 3] += s3


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def placebo_squares(odds, treated, weight, gap, reaction, bounds, arms, sums):  # type: ignore[no-untyped-def]
    """sums (B, 11) += of the treated U^2 g^2, U^2 g, U^2, U g R, U R, of the untreated the same with D, and R^2: U and D are arm
    weights, g gaps, R the reaction of the effect to the row's score (that of the mean placebo) times what the score misses."""
    one, zero = weight.dtype.type(1), weight.dtype.type(0)
    low, high = bounds[0], bounds[1]
    a1, b1, a0, b0 = arms[0], arms[1], arms[2], arms[3]
    for b in range(odds.shape[0]):
        e, t = odds[b], treated[b]
        u0, u1, u2, u3, u4 = zero, zero, zero, zero, zero
        d0, d1, d2, d3, d4, r2 = zero, zero, zero, zero, zero, zero
        for j in range(e.shape[0]):
            up, down = one + e[j], one + one / e[j]
            yes = t[j] * weight[j]
            no = weight[j] - yes
            r = (yes - weight[j] / up) * reaction[j]
            above = yes * (a1 + b1 * min(max(up, low), high))
            below = no * (a0 + b0 * min(max(down, low), high))
            g = gap[j]
            u0 += above * above * g * g
            u1 += above * above * g
            u2 += above * above
            u3 += above * g * r
            u4 += above * r
            d0 += below * below * g * g
            d1 += below * below * g
            d2 += below * below
            d3 += below * g * r
            d4 += below * r
            r2 += r * r
        row = sums[b]
        row[0] += u0
        row[1] += u1
        row[2] += u2
        row[3] += u3
        row[4] += u4
        row[5] += d0
        row[6] += d1
        row[7] += d2
        row[8] += d3
        row[9] += d4
        row[10] += r2


@numba.njit(cache=True)
def placebo_influence(odds, treated, weight, gap, bounds, arms, shares, middles, work):  # type: ignore[no-untyped-def]
    """work: in, the reaction of the effect to each row's score; out, the influence of each row."""
    one = weight.dtype.type(1)
    low, high = bounds[0], bounds[1]
    a1, b1, a0, b0 = arms[0], arms[1], arms[2], arms[3]
    for b in range(odds.shape[0]):
        e, t, o = odds[b], treated[b], work[b]
        up_share, down_share, above, below = shares[b, 0], shares[b, 1], middles[b, 0], middles[b, 1]
        for j in range(e.shape[0]):
            up, down = one + e[j], one + one / e[j]
            score = one / up
            up, down = min(max(up, low), high), min(max(down, low), high)
            yes = t[j] * weight[j]
            no = weight[j] - yes
            o[j] = (
                (yes - weight[j] * score) * o[j]
                + yes * (a1 + b1 * up) * (gap[j] - above) * up_share
                - no * (a0 + b0 * down) * (gap[j] - below) * down_share
            )


def memory(n: int, p: int, **options: Any) -> tuple[int, int]:
    """(private peak of `simulate`, size of `prepare`'s result), bytes. Of the test that takes most, or of options["test"];
    options["clusters"]: how many there are."""
    k = p + 1
    size = n * (4 * k + 2 + 24) + 8 * (2 * k * k + p + 2 * k) + n // 128 + 64
    return scores_.simulation_bytes(n, k, **options) + 8 * BATCH * int(options.get("clusters", 0)), size
