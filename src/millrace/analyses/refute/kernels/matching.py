"""One-nearest-neighbour matching with replacement, on the propensity score (its logit) or on the Mahalanobis distance.

Rows at the same place (equal score, or equal confounders) are ties, and a row is matched to the mean of all tied rows: an
arbitrary choice among them would be noise. Standard errors are those of Abadie and Imbens (2006), with the conditional variance
from the nearest row of the same arm. On the propensity score they are corrected for its being estimated (Abadie and Imbens 2016,
theorems 1 and 2): for ate the estimated score gives a smaller error than the true one would.

The naive bootstrap is not valid for matching (Abadie and Imbens 2008: copies of a row are its own nearest neighbours), and it is
refused. Subsampling m of n rows without replacement is, for m much smaller than n (Politis and Romano 1994): see
`subsampling_error` and `FRACTION`.

Costs: sorting and one pass over the rows for the score; a k-d tree for the Mahalanobis distance, which is slow from about ten
confounders on. See also: `ipw`, `aipw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy
from scipy.spatial import cKDTree

from millrace.analyses.refute.kernels import propensity as scores_
from millrace.analyses.refute.kernels.ipw import plain
from millrace.analyses.refute.kernels.propensity import Array, Pieces
from millrace.analyses.refute.kernels.resample import column as cause_of
from millrace.analyses.refute.kernels.resample import counts, normals, permuted, taken
from millrace.analyses.refute.study import BATCH, Fit, Resampling, Study, Target
from millrace.run.errors import NotSupported, WrongQuestion

METRICS = ("propensity", "mahalanobis")
TOLERANCE = {"fast": 2e-3, "exact": 1e-9}
"""Of the scores, for `propensity.chord`. Matches jump when scores move a little, so "fast" agrees with a refit to about a tenth
of a standard error per simulation, without bias, and not to many digits."""
LOGIT_BYTES = 16 << 20
"""Logits are float64, and made for as many simulations at a time as fit into this."""
FRACTION = 0.2
"""Of the rows in a subset. Matches are made anew in every subset, which is no part of the variance of the estimate: with 0.8 the
error from subsets is 1.46 times too large, with 0.5 1.14, with 0.2 1.01 (score of 3 confounders, 2,000 rows, 200 worlds)."""
TIE = 1e-12
"""Logits of the score that are nearer than this are equal: rows with equal confounders may differ in the last bits. Not more, or
large studies would have ties by chance, which are right but take the slower way."""


@dataclass(frozen=True, slots=True)
class Matched:
    """effect, se; most_used: the largest number of rows that one row is the match of (in weights)."""

    effect: float
    se: float
    most_used: float


def _require(study: Study, metric: str) -> None:
    scores_.require_binary(study, "matching")
    if metric not in METRICS:
        raise WrongQuestion(f"matching knows the metrics {' and '.join(METRICS)}, not {metric!r}.")
    if study.clusters is not None:
        raise NotSupported(
            "matching has no standard error for clustered rows yet (that of Abadie and Imbens takes rows to be independent). Use "
            "estimator='aipw', 'ipw' or 'ols', which have cluster-robust errors."
        )


def fit(study: Study, target: Target = "ate", *, metric: str = "propensity") -> Fit:
    """The matching estimate from all rows. se: Abadie and Imbens (2006), theorem 6 and 7, one match, and for the propensity score
    (2016), theorems 1 and 2; details: `se_known_score`, without the latter.

    Raises `Separation`, WrongQuestion (an arm is empty or has one row; unknown metric) and NotSupported (treatment not binary,
    clusters).
    """
    _require(study, metric)
    base = scores_.whitening(study)
    if metric == "mahalanobis":
        places, codes = _places(base.rows(study.confounders)[:, 1:])
        found = match_places(places, codes, study.treatment, study.outcome, study.weights, target)
        details = {"metric": metric, "most_used": found.most_used}
        return Fit(found.effect, found.se, float("nan"), study.rows - 1, "Abadie-Imbens", details)
    score = scores_.fit(study, base)
    found = match_scores(score.logits, study.treatment, study.outcome, study.weights, target)
    se = _corrected(found.se, score_correction(study, base, score, found.effect, target))
    details = {"metric": metric, "most_used": found.most_used, "se_known_score": found.se}
    return Fit(found.effect, se, float("nan"), study.rows - 1, "Abadie-Imbens, score estimated", details)


def score_correction(study: Study, base: Any, score: scores_.Propensity, effect: float, target: Target) -> float:
    """What the estimation of the score adds to the variance (for ate it takes away): Abadie and Imbens (2016), theorems 1, 2.

    With S the score, f = S (1 - S) and I the information: ate, -c'inv(I)c with c the mean of (1 - S) cov(Z, Y | S, treated) +
    S cov(Z, Y | S, untreated); att, -c'inv(I)c + d'inv(I)d with d the derivative of the effect by the score's coefficients.
    atc is att with the arms changed over. Conditional covariances and means come from the two rows of an arm that are nearest in
    the score, one on either side.
    """
    order = _order(score.logits)
    weight, s = scores_.weights_of(study)[order], score.scores[order]
    arm, y, logits = study.treatment[order] > 0, study.outcome[order], score.logits[order]
    total = float(weight.sum())
    f = weight * s * (1 - s)
    if target == "ate":
        pulls = (_pull(arm, weight * (1 - s)), _pull(~arm, weight * s))
        c = (
            sum(
                (_along_gaps(study, base, order, member, pull, y))
                for member, pull in zip((arm, ~arm), pulls, strict=True)
            )
            / total
        )
        return -float(c @ numpy.linalg.solve(score.information, c))
    own, other, odds = (arm, ~arm, s / (1 - s)) if target == "att" else (~arm, arm, (1 - s) / s)
    sign = 1.0 if target == "att" else -1.0
    inside = float((weight * (s if target == "att" else 1 - s)).sum())
    apart = f * (sign * (_level(logits, own, y) - _level(logits, other, y)) - effect)
    unordered = numpy.empty(study.rows)
    unordered[order] = apart
    means = scores_.moments(study, base, unordered[:, None])[:, 0]
    with_own = _along_gaps(study, base, order, own, _pull(own, f), y)
    with_other = _along_gaps(study, base, order, other, _pull(other, f), y)
    reweighted = _along_gaps(study, base, order, other, _pull(other, f * odds), y)
    c = (means + sign * (with_own + reweighted)) / inside
    d = (means + sign * (with_own - with_other)) / inside
    inverse = numpy.linalg.inv(score.information)
    return float(d @ inverse @ d - c @ inverse @ c)


def placebo_correction(study: Study, base: Any) -> float:
    """`score_correction` of a treatment that has nothing to do with the confounders: conditional covariances are then those of
    all rows, for every target, and d is 0."""
    weight = scores_.weights_of(study)
    total = float(weight.sum())
    share = float(weight @ study.treatment) / total
    away = weight * (study.outcome - float(weight @ study.outcome) / total)
    c = scores_.moments(study, base, away[:, None])[:, 0] / total
    return -float(c @ c) / (total * share * (1 - share))


def _corrected(se: float, correction: float) -> float:
    """Never below a tenth of the variance: in small samples the estimated correction may be larger than what it corrects."""
    return float(numpy.sqrt(max(se**2 + correction, 0.1 * se**2)))


def _pull(member: Array, value: Array) -> Array:
    """(members - 1,): sum of `value` over the rows that lie between two members that follow each other. Rows in order."""
    size = int(member.sum())
    gap = numpy.clip(numpy.cumsum(member) - 1, 0, size - 2)
    return numpy.bincount(gap, value, size - 1)


def _along_gaps(study: Study, base: Any, order: Array, member: Array, pull: Array, y: Array) -> Array:
    """(k,): sum over gaps of pull times the covariance of basis and outcome of the two members around it."""
    rows, steps = order[member], numpy.diff(y[member]) * pull / 2
    change = numpy.zeros(study.rows)
    change[rows[1:]] += steps
    change[rows[:-1]] -= steps
    return scores_.moments(study, base, change[:, None])[:, 0]


def _level(logits: Array, member: Array, y: Array) -> Array:
    """(n,): mean outcome of the two members nearest to each row, one on either side, not the row itself. Rows in order."""
    places = numpy.flatnonzero(member)
    above = numpy.searchsorted(places, numpy.arange(len(y)), side="right")
    below = numpy.searchsorted(places, numpy.arange(len(y)), side="left") - 1
    last = len(places) - 1
    low, high = y[places[numpy.clip(below, 0, last)]], y[places[numpy.clip(above, 0, last)]]
    return numpy.where(below < 0, high, numpy.where(above > last, low, (low + high) / 2))


def refit(
    study: Study,
    *,
    counts: Array | None = None,
    treatment: Array | None = None,
    column: Array | None = None,
    target: Target = "ate",
    metric: str = "propensity",
) -> tuple[float, float]:
    """(effect, standard error with the score as known) the plain way: all distances, row by row (n x n: for small studies). The
    Mahalanobis metric is the study's own, of all rows; a further column is standardised by its own mean and standard deviation,
    given the others.

    counts: 0 or 1 (a subset); copies of rows are refused.
    """
    _require(study, metric)
    if counts is not None and counts.max() > 1:
        raise _no_bootstrap()
    t = study.treatment if treatment is None else treatment
    weight = scores_.weights_of(study)
    kept = numpy.ones(study.rows, bool) if counts is None else counts > 0
    design = numpy.column_stack([study.confounders, *([] if column is None else [column])])
    if metric == "propensity":
        with_constant = numpy.column_stack([numpy.ones(study.rows), design])
        beta, _ = scores_.refit(with_constant, t, weight * kept)
        space = (with_constant @ beta)[:, None]
    else:
        centred = design - numpy.average(design, axis=0, weights=weight)
        covariance = (centred * weight[:, None]).T @ centred / weight.sum()
        space = centred @ numpy.linalg.cholesky(numpy.linalg.inv(covariance))
    return _plain_match(space[kept], t[kept] > 0, study.outcome[kept], weight[kept], target)


def _plain_match(space: Array, treated: Array, y: Array, w: Array, target: Target) -> tuple[float, float]:
    n = len(y)
    shares, variance = numpy.zeros((n, n)), numpy.empty(n)
    for i in range(n):
        distance = numpy.sqrt(((space - space[i]) ** 2).sum(axis=1))
        other = numpy.flatnonzero(treated != treated[i])
        near = other[distance[other] <= distance[other].min() + TIE]
        shares[i, near] = w[near] / w[near].sum()
        same = numpy.flatnonzero(treated == treated[i])
        same = same[same != i]
        near = same[distance[same] <= distance[same].min() + TIE]
        variance[i] = (y[i] - y[near].mean()) ** 2 * len(near) / (len(near) + 1)
    inside = w * {"ate": numpy.ones(n), "att": treated, "atc": ~treated}[target]
    single = numpy.where(treated, 1, -1) * (y - shares @ y)
    total = inside.sum()
    effect = inside @ single / total
    used, used_squared = inside @ shares, inside**2 @ shares**2
    spread = (inside**2) @ (single - effect) ** 2
    spread += variance @ ((inside + used) ** 2 - inside**2 - used_squared)
    return float(effect), float(numpy.sqrt(spread) / total)


def _no_bootstrap() -> WrongQuestion:
    return WrongQuestion(
        "The bootstrap is not valid for matching: a copied row is its own nearest neighbour, and intervals from it cover too "
        "seldom (Abadie and Imbens 2008). Use the test 'subset' (subsampling without replacement, which is valid) and leave out "
        "'bootstrap', or choose estimator='aipw' or 'ipw', which can be bootstrapped."
    )


def subsampling_error(effects: Array, rows: int, fraction: float = FRACTION) -> float:
    """Standard error of the full estimate from the effects of subsets of m = round(fraction rows) rows: sd sqrt(m / (n - m)).

    (Politis and Romano 1994; subsets of a finite sample vary by the part that they leave out.) NaN effects are left out.
    """
    m = taken(rows, fraction)
    return float(numpy.nanstd(effects, ddof=1) * numpy.sqrt(m / (rows - m)))


# -- matching itself -----------------------------------------------------------------------------------------------------------


def match_scores(
    logits: Array, treatment: Array, outcome: Array, weights: Array | None, target: Target, *, error: bool = True
) -> Matched:
    """Nearest in one dimension: one sort, then sweeps to both sides. All float64 (n,). error=False: NaN for `se` and `most_used`,
    in a third of the time."""
    order = _order(logits)
    logits, arm, y = logits[order], treatment[order].astype(numpy.int8), outcome[order]
    w = numpy.ones(len(y)) if weights is None else weights[order]
    untreated = int(numpy.count_nonzero(arm == 0))
    _require_matches(numpy.array([[untreated, len(arm) - untreated]]))
    if (numpy.diff(logits) > TIE).all():
        inside = _members(target)
        if not error:
            return Matched(float(_distinct_effect(logits, arm, y, w, inside)), float("nan"), float("nan"))
        effect, variance, most = _distinct(logits, arm, y, w, inside)
        return Matched(float(effect), float(numpy.sqrt(max(variance, 0.0))), float(most))
    codes, places = _runs(logits, TIE)
    sums = _sums(codes, len(places), arm, y, w)
    opposite, same = _sweep(places, sums[1])
    return _finish(codes, arm, y, w, sums, opposite, same, target)


def _members(target: Target) -> Array:
    """Whether untreated and treated rows are in the target population."""
    return numpy.array({"ate": (1.0, 1.0), "att": (0.0, 1.0), "atc": (1.0, 0.0)}[target])


def _order(values: Array) -> Array:
    """int32 (n,): stable ascending order. Three rounds of a radix sort on 32 bits of the place between least and largest, which
    leaves next to nothing for an insertion sort on the values: a quarter of the time of numpy.argsort, the same everywhere."""
    least, largest = float(values.min()), float(values.max())
    span = largest - least
    if not 0 < span < numpy.inf:
        return numpy.arange(len(values), dtype=numpy.int32)
    keys = ((values - least) / span * (2.0**32 - 1)).astype(numpy.uint32)
    if numpy.bincount(keys >> 16, minlength=1).max() > len(values) // 8:  # far apart: the insertion sort could be long
        return numpy.argsort(values, kind="stable").astype(numpy.int32)
    return _radix(keys, values)


@numba.njit(cache=True)
def _radix(keys, values):  # type: ignore[no-untyped-def]
    n = len(keys)
    now, after = numpy.arange(n).astype(numpy.int32), numpy.empty(n, numpy.int32)
    for shift in (0, 11, 22):
        start = numpy.zeros(2049, numpy.int64)
        for i in range(n):
            start[((keys[i] >> shift) & 2047) + 1] += 1
        for bucket in range(2048):
            start[bucket + 1] += start[bucket]
        for i in range(n):
            bucket = (keys[now[i]] >> shift) & 2047
            after[start[bucket]] = now[i]
            start[bucket] += 1
        now, after = after, now
    for i in range(1, n):
        row = now[i]
        j = i
        while j > 0 and values[now[j - 1]] > values[row]:
            now[j] = now[j - 1]
            j -= 1
        now[j] = row
    return now


@numba.njit(cache=True)
def _following(arm, other):  # type: ignore[no-untyped-def]
    """int32 (n,): the next row of the other arm, or of the same arm; -1 where there is none."""
    n = len(arm)
    out = numpy.empty(n, numpy.int32)
    untreated, treated = -1, -1
    for i in range(n - 1, -1, -1):
        out[i] = treated if (arm[i] == 1) != other else untreated
        treated, untreated = (i, untreated) if arm[i] == 1 else (treated, i)
    return out


@numba.njit(cache=True)
def _nearer(places, i, low, high):  # type: ignore[no-untyped-def]
    """The nearer of the rows low and high (one may be -1); the lower one when equal."""
    if low < 0:
        return high
    if high < 0:
        return low
    return high if places[high] - places[i] < places[i] - places[low] else low


@numba.njit(cache=True)
def _distinct_effect(places, arm, y, w, inside):  # type: ignore[no-untyped-def]
    """The effect alone, of rows in ascending order without ties."""
    after = _following(arm, True)
    untreated, treated = -1, -1
    total, summed = 0.0, 0.0
    for i in range(len(arm)):
        yes = arm[i] == 1
        near = _nearer(places, i, untreated if yes else treated, after[i])
        own = w[i] * inside[arm[i]]
        difference = y[i] - y[near]
        summed += own * (difference if yes else -difference)
        total += own
        treated, untreated = (i, untreated) if yes else (treated, i)
    return summed / total


@numba.njit(cache=True)
def _distinct(places, arm, y, w, inside):  # type: ignore[no-untyped-def]
    """As `_spread`, of rows in ascending order without ties."""
    n = len(arm)
    after, after_same = _following(arm, True), _following(arm, False)
    single, gap = numpy.empty(n), numpy.empty(n)
    used, used_squared = numpy.zeros(n), numpy.zeros(n)
    untreated, treated = -1, -1
    total, summed = 0.0, 0.0
    for i in range(n):
        yes = arm[i] == 1
        near = _nearer(places, i, untreated if yes else treated, after[i])
        gap[i] = y[i] - y[_nearer(places, i, treated if yes else untreated, after_same[i])]
        own = w[i] * inside[arm[i]]
        difference = y[i] - y[near]
        single[i] = difference if yes else -difference
        summed += own * single[i]
        total += own
        used[near] += own
        used_squared[near] += own * own
        treated, untreated = (i, untreated) if yes else (treated, i)
    effect, spread, most = summed / total, 0.0, 0.0
    for i in range(n):
        own = w[i] * inside[arm[i]]
        spread += (own * (single[i] - effect)) ** 2
        spread += 0.5 * gap[i] ** 2 * ((own + used[i]) ** 2 - own**2 - used_squared[i])
        most = max(most, used[i])
    return effect, spread / total**2, most


def match_places(
    places: Array, codes: Array, treatment: Array, outcome: Array, weights: Array | None, target: Target
) -> Matched:
    """Nearest by Euclidean distance. places: (g, d) distinct; codes: int (n,), the place of each row."""
    arm, w = treatment.astype(numpy.int8), numpy.ones(len(outcome)) if weights is None else weights
    sums = _sums(codes, len(places), arm, outcome, w)
    _require_matches(sums[1])
    opposite, same = numpy.full((len(places), 2), -1), numpy.full((len(places), 2), -1)
    for a in (0, 1):
        held = numpy.flatnonzero(sums[1][:, a] > 0)
        tree = cKDTree(places[held])
        asking = numpy.flatnonzero(sums[1][:, 1 - a] > 0)
        opposite[asking, 1 - a] = held[tree.query(places[asking])[1]]
        if len(held) > 1:
            # The nearest place is the row's own; only rows that are alone there need the next.
            same[held, a] = held[_second(tree, places[held])]
    return _finish(codes, arm, outcome, w, sums, opposite, same, target)


def _second(tree: Any, places: Array) -> Array:
    near = tree.query(places, k=2)[1]
    return numpy.where(near[:, 0] == numpy.arange(len(places)), near[:, 1], near[:, 0])


def _places(space: Array) -> tuple[Array, Array]:
    """(distinct rows (g, d), the place of each row (n,)) up to rounding in the last bits."""
    codes = numpy.unique(numpy.round(space, 9), axis=0, return_inverse=True)[1].reshape(-1).astype(numpy.int64)
    places = numpy.empty((int(codes.max()) + 1, space.shape[1]))
    places[codes] = space
    return places, codes


def _require_matches(number: Array) -> None:
    in_arm = number.sum(axis=0)
    if in_arm.min() < 2:
        raise WrongQuestion(
            f"Matching needs at least two treated and two untreated rows; there are {int(in_arm[1])} and {int(in_arm[0])}."
        )


@numba.njit(cache=True)
def _runs(sorted_values, tie):  # type: ignore[no-untyped-def]
    """(number of the run of each value, first value of each run): a run ends where the next value is further than `tie`."""
    n = len(sorted_values)
    codes, starts = numpy.empty(n, numpy.int64), numpy.empty(n)
    run = -1
    for i in range(n):
        if i == 0 or sorted_values[i] - sorted_values[i - 1] > tie:
            run += 1
            starts[run] = sorted_values[i]
        codes[i] = run
    return codes, starts[: run + 1].copy()


@numba.njit(cache=True)
def _sums(codes, places, arm, y, w):  # type: ignore[no-untyped-def]
    """(sum of weights, number of rows, sum of weighted outcomes, sum of outcomes), each (places, 2) by arm."""
    weight, number = numpy.zeros((places, 2)), numpy.zeros((places, 2))
    weighted, summed = numpy.zeros((places, 2)), numpy.zeros((places, 2))
    for i in range(len(codes)):
        g, a = codes[i], arm[i]
        weight[g, a] += w[i]
        number[g, a] += 1
        weighted[g, a] += w[i] * y[i]
        summed[g, a] += y[i]
    return weight, number, weighted, summed


@numba.njit(cache=True)
def _sweep(places, number):  # type: ignore[no-untyped-def]
    """(nearest place with rows of the other arm, nearest other place with rows of the same arm), (g, 2) by arm of the asking."""
    size = len(places)
    right = numpy.full((size, 2), -1)
    last = numpy.full(2, -1)
    for g in range(size - 1, -1, -1):
        for a in range(2):
            right[g, a] = last[a]
        for a in range(2):
            if number[g, a] > 0:
                last[a] = g
    opposite, same = numpy.full((size, 2), -1), numpy.full((size, 2), -1)
    left = numpy.full(2, -1)
    for g in range(size):
        for a in range(2):
            low, high = left[a], right[g, a]
            if low < 0 or (high >= 0 and places[high] - places[g] < places[g] - places[low]):
                near = high
            else:
                near = low
            same[g, a] = near
            opposite[g, 1 - a] = g if number[g, a] > 0 else near
        for a in range(2):
            if number[g, a] > 0:
                left[a] = g
    return opposite, same


@numba.njit(cache=True)
def _spread(codes, arm, y, w, weight, number, weighted, summed, opposite, same, inside):  # type: ignore[no-untyped-def]
    """(effect, variance of it, largest use of a row); inside: whether untreated and treated rows are in the target."""
    n, size = len(codes), len(weight)
    single = numpy.empty(n)
    used, used_squared = numpy.zeros((size, 2)), numpy.zeros((size, 2))
    total, summed_effects = 0.0, 0.0
    for i in range(n):
        a = arm[i]
        if inside[a] == 0:
            continue
        m, other = opposite[codes[i], a], 1 - a
        mean = weighted[m, other] / weight[m, other]
        single[i] = (y[i] - mean) if a == 1 else (mean - y[i])
        total += w[i]
        summed_effects += w[i] * single[i]
        used[m, other] += w[i] / weight[m, other]
        used_squared[m, other] += (w[i] / weight[m, other]) ** 2
    effect, spread, most = summed_effects / total, 0.0, 0.0
    for i in range(n):
        a, g = arm[i], codes[i]
        own = w[i] * inside[a]
        if own > 0:
            spread += (own * (single[i] - effect)) ** 2
        use = w[i] * used[g, a]
        most = max(most, use)
        factor = (own + use) ** 2 - own**2 - w[i] ** 2 * used_squared[g, a]
        if factor != 0:
            near, mean = number[g, a] - 1, summed[g, a] - y[i]
            if near == 0:
                near, mean = number[same[g, a], a], summed[same[g, a], a]
            spread += factor * (y[i] - mean / near) ** 2 * near / (near + 1)
    return effect, spread / total**2, most


def _finish(
    codes: Array, arm: Array, y: Array, w: Array, sums: Any, opposite: Array, same: Array, target: Target
) -> Matched:
    effect, variance, most = _spread(codes, arm, y, w, *sums, opposite, same, _members(target))
    return Matched(float(effect), float(numpy.sqrt(max(variance, 0.0))), float(most))


# -- simulations ---------------------------------------------------------------------------------------------------------------


def prepare(
    study: Study, target: Target = "ate", *, metric: str = "propensity", scratch: str | None = None
) -> dict[str, Any]:
    """What simulations share: for the propensity score the arranged basis and the full fit; for Mahalanobis the whitened
    confounders (n, d) and the place of each row."""
    _require(study, metric)
    base = scores_.whitening(study)
    if metric == "mahalanobis":
        space = base.rows(study.confounders)[:, 1:]
        return {"space": numpy.ascontiguousarray(space), "codes": _places(space)[1]}
    found = scores_.fit(study, base)
    return {
        **scores_.arrange(study, base, found, scratch),
        "logits": found.logits,
        "placebo_correction": numpy.float64(placebo_correction(study, base)),
    }


def simulate(
    study: Study,
    shared: Mapping[str, Any],
    test: Resampling,
    first: int,
    seed: int,
    *,
    target: Target = "ate",
    fraction: float = FRACTION,
    precision: str = "fast",
    metric: str = "propensity",
) -> Array:
    """float64 (BATCH, 2): effects and standard errors of simulations first .. first + BATCH - 1.

    Abadie-Imbens errors for the placebo (as in `fit`), NaN for the others. Scores are estimated anew in each. test="bootstrap" is
    refused with WrongQuestion: it is not valid for matching.
    """
    if test == "bootstrap":
        raise _no_bootstrap()
    if test not in ("subset", "placebo", "random_cause"):
        raise WrongQuestion(f"matching has no simulation {test!r}; choose subset, placebo or random_cause.")
    _require(study, metric)
    if metric == "mahalanobis":
        return numpy.array([_near_places(study, shared, test, first + b, seed, target, fraction) for b in range(BATCH)])
    pieces = Pieces(study, shared, precision)
    settled = _settle(pieces, test, first, seed, fraction, TOLERANCE[precision])
    out = numpy.empty((BATCH, 2))
    for b, logits in _logits(pieces, settled, test, first, seed):
        if settled.lost[b]:
            out[b] = plain(refit, study, test, first + b, seed, fraction, target=target, metric=metric)
        else:
            found = _matched(study, logits, test, first + b, seed, target, fraction)
            out[b] = found.effect, found.se
        correction = float(shared["placebo_correction"])
        out[b, 1] = _corrected(out[b, 1], correction) if test == "placebo" else numpy.nan
    return out


def _settle(
    pieces: Pieces, test: Resampling, first: int, seed: int, fraction: float, tolerance: float
) -> scores_.Settled:
    if test == "subset":
        drawn = scores_.ArrangedCounts(pieces, test, seed, first, fraction)
        return scores_.settle_resampled(pieces, drawn, fraction, tolerance)
    if test == "placebo":
        return scores_.settle_placebo(pieces, scores_.placebos(pieces, seed, first), tolerance)
    return scores_.settle_widened(pieces, scores_.Border(pieces, first, seed), tolerance)


def _logits(pieces: Pieces, settled: scores_.Settled, test: Resampling, first: int, seed: int) -> Any:
    """(b, logits (n,) float64), a few simulations at a time: float32 would make ties, and break those that there are."""
    study, shared, k = pieces.study, pieces.shared, pieces.width
    final = settled.shift + settled.step
    slopes = pieces.base.rotation @ final[:, 1:k].T  # (p, B)
    group = max(1, min(BATCH, LOGIT_BYTES // (8 * study.rows)))
    for begin in range(0, BATCH, group):
        members = slice(begin, min(begin + group, BATCH))
        logits = numpy.empty((members.stop - begin, study.rows))
        offset = final[members, 0] - pieces.base.mean @ slopes[:, members]
        if test == "placebo":
            offset = offset + scores_.placebo_start(study)[0]
        for piece in range(pieces.count):
            at = pieces.at(piece)
            logits[:, at] = (
                slopes[:, members].T @ numpy.asarray(study.confounders[at], numpy.float64).T + offset[:, None]
            )
            if test != "placebo":
                logits[:, at] += shared["logits"][at]
            if test == "random_cause":
                cause = numpy.empty((len(logits), at.stop - at.start))
                normals("random_cause", seed, first + begin, piece, cause)
                logits[:, at] += cause * final[members, k, None]
        for b in range(begin, members.stop):
            yield b, logits[b - begin]


def _matched(
    study: Study, logits: Array, test: Resampling, i: int, seed: int, target: Target, fraction: float
) -> Matched:
    t, y, w = study.treatment, study.outcome, study.weights
    if test == "placebo":
        t = permuted(t, seed, i, strata=study.strata)
    if test == "subset":
        rows = numpy.flatnonzero(counts(study.rows, "subset", seed, i, fraction=fraction))
        logits, t, y, w = logits[rows], t[rows], y[rows], None if w is None else w[rows]
    return match_scores(logits, t, y, w, target, error=test == "placebo")


def _near_places(
    study: Study, shared: Mapping[str, Any], test: Resampling, i: int, seed: int, target: Target, fraction: float
) -> tuple[float, float]:
    space, codes = numpy.asarray(shared["space"]), numpy.asarray(shared["codes"])
    t, y, w = study.treatment, study.outcome, study.weights
    if test == "placebo":
        t = permuted(t, seed, i, strata=study.strata)
    elif test == "subset":
        rows = numpy.flatnonzero(counts(study.rows, "subset", seed, i, fraction=fraction))
        codes = numpy.unique(codes[rows], return_inverse=True)[1].reshape(-1)
        space, t, y, w = space[rows], t[rows], y[rows], None if w is None else w[rows]
    else:
        space = numpy.column_stack([space, _apart(space, cause_of(study.rows, seed, i), scores_.weights_of(study))])
        codes = numpy.arange(len(space))
    places = numpy.empty((int(codes.max()) + 1, space.shape[1]))
    places[codes] = space
    found = match_places(places, codes, t, y, w, target)
    return found.effect, found.se if test == "placebo" else float("nan")


def _apart(space: Array, cause: Array, weight: Array) -> Array:
    """The cause less what the (whitened) space explains of it, with variance 1: one more whitened column."""
    total = weight.sum()
    cause = cause - weight @ cause / total
    cause = cause - space @ (space.T @ (weight * cause) / total)
    return cause / numpy.sqrt(weight @ cause**2 / total)


def memory(n: int, p: int, **options: Any) -> tuple[int, int]:
    """(private peak of `simulate`, size of `prepare`'s result), bytes; see `ipw.memory`."""
    # One simulation's rows in order, its sums and its neighbours; a subset has fewer rows.
    part = float(options.get("fraction", FRACTION)) if options.get("test") == "subset" else 1.0
    one = int((200 * part + 30) * n)
    if options.get("metric", "propensity") == "mahalanobis":
        return one + int(part * 48 * (p + 1) * n) + (18 << 20), 8 * n * (p + 1)
    k = p + 1
    logits = min(BATCH, max(1, LOGIT_BYTES // (8 * n))) * 8 * n
    peak = max(scores_.simulation_bytes(n, k, **options), logits + one + 8 * n + (12 << 20))
    return peak, n * (4 * k + 2 + 8) + 8 * (2 * k * k + p + k) + n // 128 + 64
