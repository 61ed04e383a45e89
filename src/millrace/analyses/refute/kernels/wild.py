"""The wild cluster bootstrap of least squares: a p-value and an interval that hold with few clusters.

Cluster-robust errors are too small with fewer than some 30 clusters: with 8 of unequal size a test at 5 % rejects 21 % of what
is true (15 % by Student's t with 7 degrees of freedom), with 15 it is 11 %; this one rejects 10 and 7 %. Here the residuals
of each cluster are turned round as a whole, under the hypothesis that is tested, and the estimate is compared with what comes
of that, both studentised (Cameron, Gelbach and Miller, Review of Economics and Statistics 90, 2008; Roodman, Nielsen,
MacKinnon and Webb, Stata Journal 19, 2019, for the arithmetic by cluster).

One pass over the rows leaves a few numbers a cluster; a simulation is a product of these. Cannot help with one or two treated
clusters, where no bootstrap does. See also: `ols`, which gives the estimate and its cluster-robust error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy

from millrace.analyses.refute.kernels.whiten import basis_rows, stretches, whiten
from millrace.analyses.refute.study import WILD_CLUSTERS, Study
from millrace.run.errors import WrongQuestion

Array = numpy.ndarray[Any, Any]

WEBB = numpy.sqrt(numpy.array([1.5, 1.0, 0.5]))
FEW = 12
"""Up to here signs alone would give few different samples, so Webb's six values are drawn (Queen's Economics Department working
paper 1315, 2013), unless all signs can be tried."""


@dataclass(frozen=True, slots=True)
class Wild:
    """p: of no effect. low, high: the effects that are not rejected at 1 - level (infinite where all on a side are not).
    draws: "all signs", "signs" or "Webb's six"; simulations: how many were tried."""

    effect: float
    se: float
    p: float
    low: float
    high: float
    level: float
    clusters: int
    simulations: int
    draws: str


@dataclass(frozen=True, slots=True)
class Clusters:
    """By cluster g, all weighted: t't and t'y of the treatment that the confounders leave (G,); t'Q (G, k); Q'y_left, Q't_left
    (G, k), Q the orthonormal basis of constant, treatment and confounders. square: t't of all."""

    tt: Array
    ty: Array
    tq: Array
    qy: Array
    qt: Array
    square: float
    factor: float


def wild(study: Study, *, simulations: int = 999, seed: int = 0, level: float = 0.95) -> Wild:
    """Of the treatment's coefficient in outcome ~ 1 + treatment + confounders. Raises WrongQuestion without clusters, or with
    fewer than WILD_CLUSTERS of them; see also `whiten.whiten`."""
    if study.clusters is None:
        raise WrongQuestion(
            "The wild cluster bootstrap needs clusters: name the column of groups that belong together."
        )
    number = study.groups
    if number < WILD_CLUSTERS:
        raise WrongQuestion(
            f"{number} clusters are too few for any error by cluster: at least {WILD_CLUSTERS} are needed."
        )
    its = gather(study)
    draws, how = drawn(number, simulations, seed)
    effect = float(its.ty.sum() / its.square)
    se = float(
        numpy.sqrt(its.factor * ((its.ty - effect * its.tt - its.tq @ _total(its, effect)) ** 2).sum()) / its.square
    )
    low, high = _interval(its, draws, effect, se, 1 - level)
    return Wild(effect, se, p_value(its, draws, effect, se, 0.0), low, high, level, number, len(draws), how)


def gather(study: Study) -> Clusters:
    """One pass over the rows (after those of `whiten`)."""
    assert study.clusters is not None
    whitened = whiten(study)
    whitener, coefficients = whitened.whitener(), whitened.coefficients()
    n, k = study.rows, whitened.regressors + 1
    groups = study.groups
    own = whitened.triangle[-2, -2]
    y_on_rest, sums = coefficients.copy(), numpy.zeros((groups, 2 + 3 * k))
    # What the confounders alone leave of the outcome is the residual plus the effect times what they leave of the treatment.
    for begin, end in stretches(n, k + 1):
        rows, whole = basis_rows(study, whitened, whitener, begin, end)
        t = rows[:, 1] * own
        y = whole[:, -1] - whole[:, :-1] @ y_on_rest + coefficients[-1] * t
        parts = numpy.column_stack([t * t, t * y, rows * t[:, None], rows * y[:, None]])
        codes = study.clusters[begin:end]
        for j in range(parts.shape[1]):
            sums[:, j] += numpy.bincount(codes, parts[:, j], groups)
    tq = sums[:, 2 : 2 + k]
    factor = groups / (groups - 1) * (n - 1) / (n - k)
    return Clusters(sums[:, 0], sums[:, 1], tq, sums[:, 2 + k : 2 + 2 * k], tq, float(own * own), factor)


def _total(its: Clusters, effect: float) -> Array:
    """Q' of all residuals under `effect`: (k,)."""
    total: Array = (its.qy - effect * its.qt).sum(axis=0)
    return total


def drawn(clusters: int, simulations: int, seed: int) -> tuple[Array, str]:
    """(B, G) what each cluster's residuals are multiplied with, mean 0 and variance 1. All signs where there are no more of
    them than simulations were asked for; the first row is then the data themselves, which `p_value` leaves out."""
    if 2**clusters <= simulations + 1:
        return numpy.array(list(product((1.0, -1.0), repeat=clusters)))[1:], "all signs"
    values = numpy.concatenate([WEBB, -WEBB]) if clusters <= FEW else numpy.array([1.0, -1.0])
    made = numpy.empty((simulations, clusters))
    for i in range(simulations):
        stream = numpy.random.Generator(numpy.random.Philox(numpy.random.SeedSequence(seed, spawn_key=(0x3D, i))))
        made[i] = values[stream.integers(0, len(values), clusters)]
    return made, "Webb's six" if clusters <= FEW else "signs"


def p_value(its: Clusters, draws: Array, effect: float, se: float, null: float) -> float:
    """(1 + #{|t*| >= |t|}) / (B + 1), with the residuals of a fit in which the effect is `null`."""
    score, on_basis = its.ty - null * its.tt, its.qy - null * its.qt
    shift = draws @ score
    left = draws * score - (draws @ on_basis) @ its.tq.T
    spread = numpy.sqrt(its.factor * (left**2).sum(axis=1))
    # Both over the square of the treatment, which cancels. A draw that changes all signs gives the same |t|: up to rounding.
    reached = numpy.abs(shift) >= abs(effect - null) / se * spread * (1 - 1e-9)
    return float((1 + reached.sum()) / (len(draws) + 1))


def _interval(its: Clusters, draws: Array, effect: float, se: float, alpha: float) -> tuple[float, float]:
    """Where p passes alpha on either side of the estimate, by doubling and halving."""

    def end(side: float) -> float:
        inside, outside = 0.0, 2.0 * se
        while p_value(its, draws, effect, se, effect + side * outside) > alpha:
            inside, outside = outside, 2 * outside
            if outside > 1e6 * se:
                return side * float("inf")
        for _ in range(50):
            middle = (inside + outside) / 2
            if p_value(its, draws, effect, se, effect + side * middle) > alpha:
                inside = middle
            else:
                outside = middle
        return effect + side * outside

    return end(-1.0), end(1.0)
