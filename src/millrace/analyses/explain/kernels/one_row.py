"""Path-dependent SHAP values of a single row: the points of the quadrature side by side, instead of rows.

The walk of `quadrature` serves 16 rows at a time; a single row would pay for all of them at every point. Here the up to
16 points of a tree's rule lie in one vector. Nodes are in preorder, so there is no stack: products of factors go forward
over the nodes, sums of leaves back. The formulas, and so the values but for rounding, are those of `quadrature`. Does not
compute outputs.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.ensemble import Ensemble, goes_left
from millrace.analyses.explain.kernels.lanes import (
    LANES,
    aligned_zeros,
    fma,
    frozen,
    full,
    lanes,  # noqa: F401  (numba resolves the type of lane values by it)
    load,
    read_only,
    store,
    sum_of,
    writable,
)
from millrace.analyses.explain.kernels.legendre import legendre_rule
from millrace.analyses.explain.kernels.structure import ROUNDING, Structure

_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))


def rules(ensemble: Ensemble, structure: Structure) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(start, length) of each tree's rule, padded to whole vectors, in parts[3, all]: points, their distances to 1, weights
    (0 in the padding)."""
    if not ensemble.n_trees:
        return frozen(np.zeros(0, np.int64)), frozen(np.zeros(0, np.int64)), frozen(np.zeros((3, 0)))
    leaf = ensemble.left < 0
    needed = (np.maximum.reduceat(np.where(leaf, structure.distinct, 0), ensemble.tree_start[:-1]) + 1) // 2
    starts, parts = {}, ([], [], [])  # type: ignore[var-annotated]
    for count in sorted(set(needed.tolist()) - {0}):
        starts[count] = len(parts[0])
        padding = -count % LANES
        for part, more, rest in zip(parts, legendre_rule(count), (0.5, 0.5, 0.0), strict=True):
            part.extend([*more, *[rest] * padding])
    length = (needed + LANES - 1) // LANES * LANES
    start = np.array([starts.get(count, 0) for count in needed.tolist()], np.int64)
    return frozen(start), frozen(length.astype(np.int64)), frozen(np.array(parts, np.float64).reshape(3, -1))


@njit(
    types.void(
        *(_INTS, _INTS, _INTS, read_only(types.float64, 2), _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES, _LONGS, _INTS),
        *(_INTS, _INTS, _FLOATS, _FLOATS, _LONGS, _LONGS, read_only(types.float64, 2), types.int64),
        *(_FLOATS, writable(types.float64, 2)),
    ),
    cache=True,
    nogil=True,
    error_model="numpy",
)
def walk_row(  # type: ignore[no-untyped-def]
    feature, left, right, value, threshold, mode, category_start, category_count, category_member, tree_start, tree_output,
    player, previous, fraction, before, rule_start, rule_length, rule, most_nodes,
    row, sums,
):  # fmt: skip
    """Add the values of all trees to sums[n_outputs, played] (players in the order of `structure.played`). row: float64,
    already rounded to float32 where the ensemble compares float32. rules: see `rules`; most_nodes: of the largest tree."""
    at, rest, weight = rule[0], rule[1], rule[2]
    widest = rule_length.max() if len(rule_length) else 0
    product = aligned_zeros(most_nodes * widest)  # of the factors on the path down to a node, by point
    below = aligned_zeros(most_nodes * widest)  # over its leaves, of v times the factors below it
    goes, on = np.empty(most_nodes), np.empty(most_nodes)
    held = np.ones(most_nodes)  # whether the row has met the conditions on the player of the edge that ends in a node
    for tree in range(len(tree_output)):
        root, last, first, size = tree_start[tree], tree_start[tree + 1], rule_start[tree], rule_length[tree]
        if not size:
            continue
        for q in range(0, size, LANES):
            store(product, q, full(1.0))
        for node in range(root, last):
            lo, hi, i = np.int64(left[node]), np.int64(right[node]), node - root
            if lo < 0:
                continue
            met = goes_left(
                row[feature[node]],
                mode[node],
                threshold[node],
                category_start[node],
                category_count[node],
                category_member,
            )
            o = 1.0 if met else 0.0
            active = held[previous[node] - root] if previous[node] >= 0 else 1.0
            goes[i], on[i] = o, active
            held[lo - root], held[hi - root] = o * active, (1.0 - o) * active
            a, b, r = fraction[lo], fraction[hi], before[node]
            if left[lo] < 0 and left[hi] < 0:
                continue
            plain = previous[node] < 0 and abs(a + b - 1.0) <= ROUNDING
            for q in range(0, size, LANES):
                t, u, p = load(at, first + q), load(rest, first + q), load(product, i * size + q)
                if plain:
                    kept = p * fma(t, o, u * a)
                    store(product, (lo - root) * size + q, kept)
                    store(product, (hi - root) * size + q, p - kept)
                    continue
                if active == 0.0:
                    store(product, (lo - root) * size + q, a * p)
                    store(product, (hi - root) * size + q, b * p)
                    continue
                g = fma(u, r, t)
                share = p / g
                c = fma(t, o, u * (r * a))
                store(product, (lo - root) * size + q, c * share)
                store(product, (hi - root) * size + q, (fma(u, r * (a + b), t) - c) * share)
        for k in range(value.shape[1]):
            output = tree_output[tree] + k
            for node in range(last - 1, root - 1, -1):
                lo, hi, i = np.int64(left[node]), np.int64(right[node]), node - root
                if lo < 0:
                    continue
                o, active, a, b, r = goes[i], on[i], fraction[lo], fraction[hi], before[node]
                total = full(0.0)
                plain = previous[node] < 0 and abs(a + b - 1.0) <= ROUNDING
                for q in range(0, size, LANES):
                    zl = full(value[lo, k]) if left[lo] < 0 else load(below, (lo - root) * size + q)
                    zr = full(value[hi, k]) if left[hi] < 0 else load(below, (hi - root) * size + q)
                    if active == 0.0:
                        store(below, i * size + q, fma(a, zl, b * zr))
                        continue
                    t, u = load(at, first + q), load(rest, first + q)
                    jump = zl - zr
                    if plain:
                        store(below, i * size + q, fma(fma(t, o, u * a), jump, zr))
                        total = fma(load(weight, first + q) * load(product, i * size + q), jump, total)
                        continue
                    inverse = 1.0 / fma(u, r, t)
                    c = fma(t, o, u * (r * a))
                    store(below, i * size + q, fma(c, jump, fma(u, r * (a + b), t) * zr) * inverse)
                    scale = load(weight, first + q) * load(product, i * size + q) * (r * inverse) * inverse
                    total = fma(scale, fma(o - a, jump, (1.0 - a - b) * zr), total)
                if active != 0.0:
                    sums[output, player[node]] += sum_of(total) * (o - a) if plain else sum_of(total)
