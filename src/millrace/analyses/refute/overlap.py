"""Are the treated and the others comparable: balance before and after adjustment, propensity, effective sample size.

Takes propensities and weights that an estimator made; fits nothing. Verdicts are in `rules`, pictures in `views`. One
pass over the confounders in blocks of rows, which may be memory-mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]

ROWS = 8_192
BINS = 40


@dataclass(frozen=True, slots=True)
class Overlap:
    """names, before, after: (p,) each: standardised mean differences, or correlations with a continuous treatment.

    outside: share of rows whose propensity lies outside `limits`, None for a continuous treatment. ess: effective rows of
    each arm, (all,) for a continuous treatment; ess_share: the smallest over what that arm has without adjustment. edges,
    histogram: (bins + 1,) and (arms, bins), share of each arm by propensity; None for a continuous treatment.
    """

    kind: Literal["smd", "correlation"]
    names: tuple[str, ...]
    before: Array
    after: Array
    limits: tuple[float, float]
    outside: float | None
    rows: tuple[int, ...]
    ess: tuple[float, ...]
    ess_share: float
    edges: Array | None
    histogram: Array | None


def measure(
    confounders: NDArray[Any],
    treatment: Array,
    names: Sequence[str],
    *,
    propensity: Array | None = None,
    weights: Array | None = None,
    base: Array | None = None,
    limits: tuple[float, float] = (0.05, 0.95),
    binary: bool = True,
) -> Overlap:
    """confounders (n, p), treatment (n,), propensity (n,) of a binary treatment, weights (n,) >= 0 of the adjustment (None:
    as before), base (n,) the weights that the data came with; `weights` holds them already where there are some."""
    treatment = np.asarray(treatment, dtype=np.float64)
    if len(names) != confounders.shape[1]:
        raise WrongQuestion(f"{len(names)} names for {confounders.shape[1]} confounders.")
    for called, given in (("propensity", propensity), ("weights", weights), ("base", base)):
        if given is not None and (len(given) != len(treatment) or not np.all(np.isfinite(given)) or np.min(given) < 0):
            raise WrongQuestion(f"{called} must be {len(treatment):,} finite numbers, none below 0.")
    of = smd if binary else correlation
    before = of(confounders, treatment, base)
    after = before if weights is None else of(confounders, treatment, weights, base)
    arms = [treatment == 1, treatment == 0] if binary else [np.ones(len(treatment), dtype=bool)]
    own = [effective(base, arm) for arm in arms]
    ess = own if weights is None else [effective(weights, arm) for arm in arms]
    outside = edges = histogram = None
    if binary and propensity is not None:
        outside = outside_share(propensity, limits, base)
        edges, histogram = shares_by_propensity(propensity, treatment, base)
    return Overlap(
        "smd" if binary else "correlation", tuple(map(str, names)), before, after, limits, outside,
        tuple(int(arm.sum()) for arm in arms), tuple(ess),
        min((e / o for e, o in zip(ess, own, strict=True) if o > 0), default=0.0), edges, histogram,
    )  # fmt: skip


def smd(confounders: NDArray[Any], treatment: Array, weights: Array | None = None, base: Array | None = None) -> Array:
    """(mean of the treated - mean of the others) / sqrt of the mean of the two arms' variances, (p,), after `weights`.

    The denominator is that of the data as they came (`base`), so that before and after are on one scale (Austin, 2009).
    For a binary column its variance is share x (1 - share), which is the same formula. 0 where neither arm varies and the
    means are the same, +-inf where they are not.
    """
    plain = _arm_moments(confounders, treatment, base)
    means = plain if weights is None else _arm_moments(confounders, treatment, weights)
    spread = np.sqrt((plain[1, 0] + plain[1, 1]) / 2)
    difference = means[0, 0] - means[0, 1]
    scale = np.abs(means[0]).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = difference / spread
    still = spread <= 1e-12 * scale
    return np.where(still, np.where(np.abs(difference) <= 1e-12 * scale, 0.0, np.copysign(np.inf, difference)), ratio)


def _arm_moments(confounders: NDArray[Any], treatment: Array, weights: Array | None) -> Array:
    """(mean or variance, treated or other, column). Sums about the first row, so that a large mean costs no digits."""
    p = confounders.shape[1]
    sums, total = np.zeros((2, 2, p)), np.zeros(2)
    origin = np.asarray(confounders[0], dtype=np.float64)
    for start in range(0, len(treatment), ROWS):
        block = slice(start, start + ROWS)
        x = np.asarray(confounders[block], dtype=np.float64) - origin
        w = np.ones(len(x)) if weights is None else np.asarray(weights[block], dtype=np.float64)
        arms = np.stack([w * (treatment[block] == 1), w * (treatment[block] == 0)])
        sums[0] += arms @ x
        sums[1] += arms @ (x * x)
        total += arms.sum(axis=1)
    if not np.all(total > 0):
        raise WrongQuestion("Balance needs rows with a weight above 0 in both arms of the treatment.")
    mean = sums[0] / total[:, None]
    return np.stack([mean + origin, np.maximum(sums[1] / total[:, None] - mean**2, 0.0)])


def correlation(
    confounders: NDArray[Any], treatment: Array, weights: Array | None = None, base: Array | None = None
) -> Array:
    """Weighted correlation of every confounder with a continuous treatment, (p,); 0 where a column does not vary."""
    del base
    p = confounders.shape[1]
    origin, first = np.asarray(confounders[0], dtype=np.float64), float(treatment[0])
    s, squares, cross = np.zeros(p + 1), np.zeros(p + 1), np.zeros(p + 1)
    total = 0.0
    for start in range(0, len(treatment), ROWS):
        block = slice(start, start + ROWS)
        t = treatment[block] - first
        x = np.column_stack([np.asarray(confounders[block], dtype=np.float64) - origin, t])
        w = np.ones(len(x)) if weights is None else np.asarray(weights[block], dtype=np.float64)
        s, squares, cross = s + w @ x, squares + w @ (x * x), cross + (w * t) @ x
        total += float(w.sum())
    mean = s / total
    variance = np.maximum(squares / total - mean**2, 0.0)
    moves = variance > 1e-24 * squares / total
    size = np.sqrt(variance[:p] * variance[p])
    both = moves[:p] & moves[p] & (size > 0)
    return np.where(both, (cross / total - mean * mean[p])[:p] / np.where(both, size, 1.0), 0.0)


def effective(weights: Array | None, rows: NDArray[np.bool_]) -> float:
    """Kish's effective number of rows: (sum w)^2 / sum w^2."""
    if weights is None:
        return float(rows.sum())
    w = weights[rows]
    square = float((w * w).sum())
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def outside_share(propensity: Array, limits: tuple[float, float], weights: Array | None = None) -> float:
    outside = (propensity < limits[0]) | (propensity > limits[1])
    return float(np.average(outside, weights=weights))


def shares_by_propensity(propensity: Array, treatment: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Edges (BINS + 1,) from 0 to 1, and (2, BINS): share of the treated, then of the others, in each bin."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    found = np.zeros((2, BINS))
    for at, arm in enumerate((1, 0)):
        chosen = treatment == arm
        counts = np.histogram(propensity[chosen], edges, weights=None if weights is None else weights[chosen])[0]
        found[at] = counts / max(float(counts.sum()), 1e-300)
    return edges, found
