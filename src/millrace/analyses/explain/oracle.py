"""The naive reference: Shapley values by adding up over all coalitions.

Slow on purpose (2^m model values for m players, at most 12) and meant to be read at a glance: every fast path is
compared with this. Uses numpy alone, and shares no code with the kernels: it decides at a split and divides covers
by itself. Not for use on real questions.

Shapley value (Shapley 1953): phi_j = sum over S without j of |S|! (m - |S| - 1)! / m! (v(S + j) - v(S)).
The two value functions v(S) for a row x:

- path-dependent (Lundberg et al. 2018, algorithm 1): go down the tree by x where a split's feature is in S, else
  both ways, weighted by the training weight (`cover`) that went there;
- interventional: the mean of f over background rows whose columns in S were replaced by those of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from millrace.run.errors import WrongQuestion

if TYPE_CHECKING:
    from millrace.analyses.explain.kernels.ensemble import Ensemble

MOST_PLAYERS = 12


def shapley(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """phi[m, ...] of a game worth[2^m, ...]: bit j of the index says whether player j takes part."""
    m = len(worth).bit_length() - 1
    phi = np.zeros((m, *worth.shape[1:]))
    for coalition in range(1 << m):
        size = coalition.bit_count()
        for j in range(m):
            if not coalition >> j & 1:
                weight = factorial(size) * factorial(m - size - 1) / factorial(m)
                phi[j] += weight * (worth[coalition | 1 << j] - worth[coalition])
    return phi


def shapley_interactions(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """phi[m, m, ...], symmetric; row j adds up to player j's Shapley value (Lundberg et al. 2018, equations 3-5).

    Off the diagonal: half the Shapley interaction index of Fujimoto et al. (2006).
    """
    m = len(worth).bit_length() - 1
    pairs = np.zeros((m, m, *worth.shape[1:]))
    for coalition in range(1 << m):
        size = coalition.bit_count()
        for i in range(m):
            for j in range(m):
                if i != j and not coalition >> i & 1 and not coalition >> j & 1:
                    weight = factorial(size) * factorial(m - size - 2) / (2 * factorial(m - 1))
                    both, one, other = coalition | 1 << i | 1 << j, coalition | 1 << i, coalition | 1 << j
                    pairs[i, j] += weight * (worth[both] - worth[one] - worth[other] + worth[coalition])
    for j, own in enumerate(shapley(worth)):
        pairs[j, j] = own - pairs[j].sum(axis=0)
    return pairs


def path_dependent_game(ensemble: Ensemble, x: NDArray[Any]) -> tuple[NDArray[np.float64], list[int]]:
    """(worth[2^m, n_outputs], the m columns that the trees use, in order) for one row x[n_features]."""
    used = sorted({int(column) for column in ensemble.feature if column >= 0})
    _check_players(len(used), "features that the trees use")
    worth = np.tile(ensemble.base, (1 << len(used), 1))
    for tree, first in enumerate(ensemble.tree_output):
        start, stop = ensemble.tree_start[tree], ensemble.tree_start[tree + 1]
        in_tree = {int(column) for column in ensemble.feature[start:stop] if column >= 0}
        seen: dict[frozenset[int], NDArray[np.float64]] = {}  # a tree sees only its own columns of a coalition
        for coalition in range(1 << len(used)):
            known = frozenset(in_tree & {column for j, column in enumerate(used) if coalition >> j & 1})
            if known not in seen:
                seen[known] = _expected(ensemble, int(start), x, known)
            worth[coalition, first : first + ensemble.width] += seen[known]
    return worth, used


def brute_path_dependent(ensemble: Ensemble, x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(phi[n_features, n_outputs], base[n_outputs]) of one row x[n_features].

    `WrongQuestion` when the trees use more than `MOST_PLAYERS` columns.
    """
    worth, used = path_dependent_game(ensemble, x)
    phi = np.zeros((ensemble.n_features, ensemble.n_outputs))
    phi[used] = shapley(worth)
    return phi, worth[0]


def interventional_game(
    predict: Callable[[NDArray[Any]], NDArray[Any]],
    x: NDArray[Any],
    background: NDArray[Any],
    weights: NDArray[Any] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> NDArray[np.float64]:
    """worth[2^m, n_outputs] of one row x[n_features]; see `brute_interventional`."""
    groups = [[column] for column in range(len(x))] if groups is None else groups
    _check_players(len(groups), "features or groups")
    shares = np.full(len(background), 1 / len(background)) if weights is None else weights / np.sum(weights)
    worth = []
    for coalition in range(1 << len(groups)):
        rows = np.array(background, copy=True)
        for j, columns in enumerate(groups):
            if coalition >> j & 1:
                rows[:, list(columns)] = x[list(columns)]
        worth.append(shares @ np.asarray(predict(rows), np.float64).reshape(len(rows), -1))
    return np.array(worth)


def brute_interventional(
    predict: Callable[[NDArray[Any]], NDArray[Any]],
    x: NDArray[Any],
    background: NDArray[Any],
    weights: NDArray[Any] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(phi[m, n_outputs], base[n_outputs]) of one row x[n_features] for any function.

    predict: rows[n, n_features] -> [n] or [n, n_outputs]. background[b, n_features] with weights[b] (equal when None).
    groups: the columns of each player; each column by itself when None. A column of no group keeps the background's
    value. `WrongQuestion` for more than `MOST_PLAYERS` players.
    """
    worth = interventional_game(predict, x, background, weights, groups)
    return shapley(worth), worth[0]


def _check_players(count: int, what: str) -> None:
    if count > MOST_PLAYERS:
        raise WrongQuestion(
            f"Brute force over {count} {what} needs 2^{count} model values; it is the reference for small cases only, "
            f"up to {MOST_PLAYERS}. Use a tree method or method='kernel'."
        )


def _expected(ensemble: Ensemble, node: int, x: NDArray[Any], known: frozenset[int]) -> NDArray[np.float64]:
    """Expected leaf value below a node when the columns in `known` are those of x."""
    if ensemble.left[node] < 0:
        return np.asarray(ensemble.value[node])
    column, left, right = int(ensemble.feature[node]), int(ensemble.left[node]), int(ensemble.right[node])
    if column in known:
        return _expected(ensemble, left if _left(ensemble, node, x[column]) else right, x, known)
    total = ensemble.cover[node]
    # Nothing is known of where the data went below a node that none reached: both ways alike.
    to_left, to_right = (ensemble.cover[left] / total, ensemble.cover[right] / total) if total > 0 else (0.5, 0.5)
    below_left, below_right = _expected(ensemble, left, x, known), _expected(ensemble, right, x, known)
    return np.asarray(to_left * below_left + to_right * below_right)


def _left(ensemble: Ensemble, node: int, z: float) -> bool:
    """Where a node sends z: the table in `kernels.ensemble`, written once more."""
    with np.errstate(over="ignore"):  # 1e300 is infinite as a float32, and compares so
        z = float(np.float32(z)) if ensemble.float32_inputs else float(z)
    mode, missing = int(ensemble.mode[node]), z != z
    if mode in (0, 1):
        return mode == 1 if missing else z <= ensemble.threshold[node]
    if mode in (2, 3):
        return mode == 3 if missing or abs(z) <= float(np.float32(1e-35)) else z <= ensemble.threshold[node]
    if missing:
        return mode == 5
    start, count = int(ensemble.category_start[node]), int(ensemble.category_count[node])
    return 0 <= z < count and bool(ensemble.category_member[start + int(z)])
