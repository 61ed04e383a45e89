"""Rosenbaum's bounds for matched pairs: how much hidden bias in who was treated would undo Wilcoxon's signed rank test.

Rosenbaum, Observational Studies (2002), section 4.3. gamma: the odds of treatment within a pair may differ by this factor
through something hidden. Pairs come from matching; nothing is matched here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millrace.analyses.refute.laws import normal_above
from millrace.run.errors import WrongQuestion

Array = NDArray[np.float64]
EXACT_PAIRS = 25


@dataclass(frozen=True, slots=True)
class Rosenbaum:
    """statistic: sum of the ranks of pairs that point the way of the effect; pairs: without differences of 0.

    gammas, p_high, p_low: (m,) largest and smallest one-sided p under bias up to gamma. gamma: the least at which the
    largest p reaches `alpha` (1: not significant even without hidden bias; inf: beyond `most`, the last one searched).
    """

    statistic: float
    pairs: int
    direction: str
    gammas: Array
    p_high: Array
    p_low: Array
    gamma: float
    alpha: float
    exact: bool


def bounds(
    differences: Array,
    *,
    gammas: Array | None = None,
    alpha: float = 0.05,
    most: float = 1000.0,
    exact: bool | None = None,
) -> Rosenbaum:
    """differences: (pairs,) treated minus control. The alternative is the side on which they lie.

    p is exact (the sum over all signs, by convolution) to EXACT_PAIRS pairs, normal above; midranks for ties.
    """
    d = np.asarray(differences, dtype=np.float64)
    if not np.all(np.isfinite(d)):
        raise WrongQuestion("Rosenbaum's bounds need finite differences of pairs.")
    if not np.any(d):
        raise WrongQuestion("Rosenbaum's bounds need pairs that differ: all differences are 0.")
    # Pairs without a difference take part in the ranking and count on neither side (Pratt), as in Rosenbaum's own tables.
    ranks = midranks(np.abs(d))[d != 0]
    d = d[d != 0]
    up, down = float(ranks[d > 0].sum()), float(ranks[d < 0].sum())
    statistic = max(up, down)
    exact = len(d) <= EXACT_PAIRS if exact is None else exact
    tail = exact_tail if exact else normal_tail
    given = np.array([1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6.0]) if gammas is None else np.asarray(gammas, dtype=np.float64)
    high = np.array([tail(ranks, statistic, g / (1 + g)) for g in given])
    low = np.array([tail(ranks, statistic, 1 / (1 + g)) for g in given])
    gamma = _lost(lambda g: tail(ranks, statistic, g / (1 + g)), alpha, most)
    return Rosenbaum(statistic, len(d), "above 0" if up >= down else "below 0", given, high, low, gamma, alpha, exact)


def midranks(values: Array) -> Array:
    """Ranks from 1, ties at their middle."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def normal_tail(ranks: Array, statistic: float, p: float) -> float:
    """P(sum of ranks, each with probability p, >= statistic), normal, without continuity correction (as published)."""
    deviation = (statistic - p * ranks.sum()) / np.sqrt(p * (1 - p) * (ranks**2).sum())
    return normal_above(deviation)


def exact_tail(ranks: Array, statistic: float, p: float) -> float:
    """The same without approximation: midranks are halves, so twice the sum is a whole number."""
    steps = np.rint(2 * ranks).astype(np.int64)
    chance = np.zeros(int(steps.sum()) + 1)
    chance[0] = 1.0
    for step in steps:
        moved = np.zeros_like(chance)
        moved[step:] = chance[: len(chance) - step]
        chance = (1 - p) * chance + p * moved
    return float(min(1.0, chance[int(np.rint(2 * statistic)) :].sum()))


def _lost(p_of: Callable[[float], float], alpha: float, most: float) -> float:
    if p_of(1.0) >= alpha:
        return 1.0
    if p_of(most) < alpha:
        return float("inf")
    low, high = 0.0, float(np.log(most))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_of(float(np.exp(middle))) < alpha else (low, middle)
    return float(np.exp(high))
