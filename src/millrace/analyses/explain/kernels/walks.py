"""Designs of the permutation and sampling methods: estimates by adding features one at a time.

A walk adds the features in a random order, and back: the same order from its end. With d(S) = v(S) - v(complement) the
mean of a feature's two contributions, after S in the one direction and before it in the other, is (d(S and j) - d(S)) / 2,
so both methods are linear in the pairs that `coalitions` evaluates anyway (Strumbelj and Kononenko 2014; antithetic as in
Mitchell et al. 2022).

- permutation: a walk gives one estimate of every feature's value, and they add up by themselves.
- sampling: each feature has draws of its own, so each draw costs two pairs a feature; what the values lack to the
  prediction is shared out equally.

Parts of a design are walks (a draw of every feature), each an estimate by itself: their spread gives standard errors.
Kriging over the same number of evaluations (see `coalitions`) is nearer, but its system grows with the square of the
features: these designs take no system.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_WALKS = 2
"""Fewer tell no spread."""


def pairs_of(features: int, evaluations: int, scheme: str) -> int:
    """Pairs of a design with about so many evaluations."""
    return _walks(features, evaluations, scheme) * _length(features, scheme)


def _length(features: int, scheme: str) -> int:
    return features - 1 if scheme == "permutation" else 2 * features


def _walks(features: int, evaluations: int, scheme: str) -> int:
    return max(LEAST_WALKS, evaluations // (2 * _length(features, scheme)))


def made(
    features: int, evaluations: int, seed: NDArray[np.uint32], scheme: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(sets[pairs, features], solver[features, pairs], full[features], first pair of each walk and the end)."""
    rng = np.random.default_rng([*seed.tolist(), features])
    walks, length = _walks(features, evaluations, scheme), _length(features, scheme)
    sets = np.zeros((walks * length, features), bool)
    solver, full = np.zeros((features, walks * length)), np.zeros(features)
    for walk in range(walks):
        first = walk * length
        if scheme == "permutation":
            order = rng.permutation(features)
            place = np.empty(features, np.int64)
            place[order] = np.arange(features)
            sets[first : first + length] = place[None, :] <= np.arange(length)[:, None]
            at = first + np.arange(length)
            solver[order[:-1], at] += 0.5 / walks
            solver[order[1:], at] -= 0.5 / walks
        else:
            place = rng.permuted(np.tile(np.arange(features), (features, 1)), axis=1)
            own = place[np.arange(features), np.arange(features)][:, None]
            without, at = first + 2 * np.arange(features), np.arange(features)
            sets[without] = place < own
            sets[without + 1] = place <= own
            solver[at, without + 1] += 0.5 / walks
            solver[at, without] -= 0.5 / walks
    if scheme == "permutation":
        full += ends(sets, np.arange(0, walks * length, length), length).mean(axis=0)
    else:
        solver -= solver.mean(axis=0)
        full += 1 / features
    return sets, solver, full, np.arange(0, walks * length + 1, length)


def ends(sets: NDArray[np.bool_], starts: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """(walks, features): half of all for the first of each walk and for its last, where a neighbour is nothing or everything."""
    return 0.5 * sets[starts] + 0.5 * ~sets[starts + length - 1]


def spread(
    sets: NDArray[np.bool_],
    solver: NDArray[np.float64],
    starts: NDArray[np.int64],
    difference: NDArray[np.float64],
    whole: NDArray[np.float64],
    values: NDArray[np.float64],
    scheme: str,
) -> NDArray[np.float64]:
    """Standard errors (features, outputs) of the mean over walks. difference: (pairs, outputs); whole: prediction less base."""
    walks, length = len(starts) - 1, int(starts[1])
    first = (
        ends(sets, starts[:-1], length) if scheme == "permutation" else np.full((walks, len(values)), 1 / len(values))
    )
    variance = np.zeros_like(values)
    for walk in range(walks):
        part = slice(int(starts[walk]), int(starts[walk + 1]))
        one = walks * (solver[:, part] @ difference[part]) + first[walk][:, None] * whole
        variance += (one - values) ** 2
    return np.sqrt(variance / (walks * (walks - 1)))
