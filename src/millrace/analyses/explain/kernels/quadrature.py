"""Path-dependent SHAP values of 16 rows at a time, by Gauss-Legendre quadrature along one walk of each tree.

For a leaf with value v and, for each distinct feature i on its path, o_i (1 when the row meets all of the path's
conditions on i, else 0) and r_i (product of the training fractions of the path's edges on i), the Shapley value is

    phi_j = v (o_j - r_j) * integral over t in [0, 1] of the product over i != j of (t o_i + (1 - t) r_i)

because the integral of t^s (1 - t)^(d-1-s) is s! (d-1-s)! / d!, the weight of a coalition of s features. The
integrand is a polynomial of degree d - 1, so ceil(d / 2) points are exact. (The same polynomials as Linear TreeSHAP,
Yu et al. 2022, kept at points instead of as coefficients.)

One walk does all leaves. At a point t let P(node) be the product of the factors on the path down to the node, and
Z(node) the sum over its leaves of v times the factors below it. A split of feature f with fractions a and b, where
the row goes left (o = 1) or right (o = 0), and the path above has met f with product r and still holds it (on = 1)
or not (on = 0; r = on = 1 when it has not met f), has, with g = (1 - t) r + t,

    left factor  c = ((1 - t) r a + t o) / g   when on, else a
    both         s = ((1 - t) r (a + b) + t) / g   when on, else a + b;   right factor s - c
    Z(node) = c Z(left) + (s - c) Z(right) = c D + s Z(right),   D = Z(left) - Z(right)
    phi_f  += on * sum over points of w r / g^2 P(node) ((o - a) D + (1 - a - b) Z(right))

The last line is the telescoped difference between a split's contribution and what the path's earlier split of f
claimed for the same leaves; so every split adds once, no factor is ever divided out again, and all terms are
bounded: paths of any length, with any number of features, repeated ones and empty nodes, are exact to rounding.
(Polynomial coefficients, as in the first TreeSHAP, lose all digits at about 60 features.) Most splits are `plain`:
f is new on the path and a + b = 1, which leaves c = (1 - t) a + t o and s = 1.

Rows never meet: each lane is its own row, so values do not depend on the rows beside them. Does not read rows (see
`rows`), and does not choose passes (see `structure`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT
from millrace.analyses.explain.kernels.lanes import (
    LANES,
    aligned_zeros,
    at_most,
    fma,
    full,
    lanes,  # noqa: F401  (numba resolves the type of lane values by it)
    load,
    not_above,
    ones,
    read_only,
    store,
    writable,
)
from millrace.analyses.explain.kernels.patterns import sent_left
from millrace.analyses.explain.kernels.structure import ROUNDING


def walk_bytes(most_depth: int, most_points: int) -> int:
    """Scratch of `walk_passes`, independent of the number of rows."""
    padded = -(-most_points // LANES) * LANES
    return (most_depth + 2) * 8 * ((3 * most_points + 2) * LANES + 4 * padded)


_INTS, _LONGS, _BYTES, _FLOATS, _MASKS = (
    read_only(dtype) for dtype in (types.int32, types.int64, types.uint8, types.float64, types.uint64)
)
_VALUES = read_only(types.float64, 2)


@njit(cache=True)
def _coefficients(a, b, r, rule, points, at, rest, weight, coefficient, first, padded):  # type: ignore[no-untyped-def]
    """The four numbers per point of a split that is not plain: c and s when on, less what they are when off; t / g;
    and w r / g^2."""
    for q in range(0, points, LANES):
        t, u = load(at, rule + q), load(rest, rule + q)
        inverse = 1.0 / fma(u, r, t)
        share = u * inverse
        store(coefficient, first + q, fma(share, r * a, -a))
        store(coefficient, first + padded + q, fma(share, r * (a + b), t * inverse) - (a + b))
        store(coefficient, first + 2 * padded + q, t * inverse)
        store(coefficient, first + 3 * padded + q, load(weight, rule + q) * inverse * inverse * r)


@njit(
    types.void(
        *(_INTS, _INTS, _VALUES, _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES, _LONGS, _INTS),
        *(_INTS, _BYTES, _INTS, _INTS, _INTS, _INTS, _FLOATS, _FLOATS, _MASKS, _LONGS, _MASKS, _INTS),
        *(_LONGS, _FLOATS, _FLOATS, _FLOATS, types.int64),
        *(_FLOATS, types.int64, types.int64, types.int64, writable(types.float64)),
    ),
    cache=True,
    nogil=True,
    error_model="numpy",
)
def walk_passes(  # type: ignore[no-untyped-def]
    left, right, value, threshold, mode, category_start, category_count, category_member, tree_start, tree_output,
    parent, side, depth, slot, player, previous, fraction, before, needs, pass_start, pass_mask, pass_points,
    rule_start, rule_at, rule_rest, rule_weight, most_depth,
    columns, stride, rows, n_played, sums,
):  # fmt: skip
    """Add the values of all trees, in model order, to sums.

    columns: float64[used features * stride], value of used feature j in row k at j * stride + k; sums:
    float64[n_outputs * n_played * stride], of players in the same order. stride is a multiple of 16 and at least `rows`; what
    is beyond `rows` is read and added to, and means nothing.
    """
    most_points = len(rule_start) - 2
    padded = -(-most_points // LANES) * LANES
    deep = most_depth + 2
    product = aligned_zeros(deep * most_points * LANES)  # P, by depth and point
    below = aligned_zeros(2 * deep * most_points * LANES)  # Z, by depth, side and point
    goes = aligned_zeros(deep * LANES)  # o of the split at a depth
    holds = aligned_zeros(deep * LANES)  # whether the feature of the edge that ends at a depth is still on
    coefficient = aligned_zeros(4 * deep * padded)
    one = full(1.0)
    for tree in range(len(tree_output)):
        root = tree_start[tree]
        for k in range(value.shape[1]):
            output = (tree_output[tree] + k) * n_played
            for cut in range(pass_start[tree], pass_start[tree + 1]):
                taken, points = pass_mask[cut], np.int64(pass_points[cut])
                rule, width = rule_start[points], points * LANES
                ts, us = rule_at[rule : rule + points], rule_rest[rule : rule + points]
                ws = rule_weight[rule : rule + points]
                for q in range(points):
                    store(product, q * LANES, one)
                for row in range(0, rows, LANES):
                    node = root
                    while True:
                        # -- down: the node is open, an inner node with leaves of this pass below it --
                        d, lo, hi = np.int64(depth[node]), np.int64(left[node]), np.int64(right[node])
                        a, b, seen = fraction[lo], fraction[hi], previous[node]
                        plain = seen < 0 and abs(a + b - 1.0) <= ROUNDING
                        place = slot[node] * stride + row
                        if mode[node] == NAN_RIGHT:
                            o = ones(at_most(columns, place, threshold[node]))
                        elif mode[node] == NAN_LEFT:
                            o = ones(not_above(columns, place, threshold[node]))
                        else:
                            first, count = category_start[node], category_count[node]
                            o = ones(
                                sent_left(mode[node], threshold[node], first, count, category_member, columns, place)
                            )
                        on = one
                        if seen >= 0:
                            on = load(holds, depth[seen] * LANES)
                        here, down = d * width, (d + 1) * width
                        zl, zr = 2 * down, 2 * down + width
                        co = 4 * d * padded
                        if not plain:
                            _coefficients(
                                a, b, before[node], rule, points, rule_at, rule_rest, rule_weight, coefficient,
                                co, padded,
                            )  # fmt: skip
                        open_lo = left[lo] >= 0 and needs[lo] & taken != 0
                        open_hi = left[hi] >= 0 and needs[hi] & taken != 0
                        v_lo = value[lo, k] if left[lo] < 0 and needs[lo] & taken != 0 else 0.0
                        v_hi = value[hi, k] if left[hi] < 0 and needs[hi] & taken != 0 else 0.0
                        if open_lo or open_hi:
                            store(goes, d * LANES, o)
                            if open_lo:
                                for q in range(points):
                                    p = load(product, here + q * LANES)
                                    if plain:
                                        c = fma(ts[q], o, us[q] * a)
                                    else:
                                        c = fma(on, fma(coefficient[co + 2 * padded + q], o, coefficient[co + q]), a)
                                    store(product, down + q * LANES, p * c)
                                store(holds, (d + 1) * LANES, o * on)
                                if not open_hi:
                                    for q in range(points):
                                        store(below, zr + q * LANES, full(v_hi))
                                node = lo
                            else:
                                for q in range(points):
                                    p = load(product, here + q * LANES)
                                    if plain:
                                        c = fma(ts[q], o, us[q] * a)
                                        store(product, down + q * LANES, p - p * c)
                                    else:
                                        c = fma(on, fma(coefficient[co + 2 * padded + q], o, coefficient[co + q]), a)
                                        s = fma(on, coefficient[co + padded + q], a + b)
                                        store(product, down + q * LANES, fma(s, p, 0.0 - p * c))
                                    store(below, zl + q * LANES, full(v_lo))
                                store(holds, (d + 1) * LANES, (1.0 - o) * on)
                                node = hi
                            continue
                        # -- bottom: both children are leaves, or without leaves of this pass --
                        z = 2 * here + side[node] * width
                        jump = v_lo - v_hi
                        total = full(0.0)
                        place = (output + player[node]) * stride + row
                        if plain:
                            for q in range(points):
                                total = fma(ws[q], load(product, here + q * LANES), total)
                                store(
                                    below, z + q * LANES,
                                    fma(jump * ts[q], o, v_hi + jump * (us[q] * a)),
                                )  # fmt: skip
                            gain = (o - a) * jump
                        else:
                            for q in range(points):
                                total = fma(coefficient[co + 3 * padded + q], load(product, here + q * LANES), total)
                                c = fma(on, fma(coefficient[co + 2 * padded + q], o, coefficient[co + q]), a)
                                s = fma(on, coefficient[co + padded + q], a + b)
                                store(below, z + q * LANES, fma(c, jump, s * v_hi))
                            gain = on * fma(o - a, jump, (1.0 - a - b) * v_hi)
                        store(sums, place, fma(gain, total, load(sums, place)))
                        # -- up, until there is a right child to walk --
                        done = True
                        while node != root:
                            child = node
                            node = np.int64(parent[child])
                            d, hi = np.int64(depth[node]), np.int64(right[node])
                            a, b, seen = fraction[left[node]], fraction[hi], previous[node]
                            plain = seen < 0 and abs(a + b - 1.0) <= ROUNDING
                            o = load(goes, d * LANES)
                            on = one
                            if seen >= 0:
                                on = load(holds, depth[seen] * LANES)
                            here, down = d * width, (d + 1) * width
                            zl, zr = 2 * down, 2 * down + width
                            co = 4 * d * padded
                            if side[child] == 0 and left[hi] >= 0 and needs[hi] & taken != 0:
                                for q in range(points):
                                    p, pl = load(product, here + q * LANES), load(product, down + q * LANES)
                                    if plain:
                                        store(product, down + q * LANES, p - pl)
                                    else:
                                        s = fma(on, coefficient[co + padded + q], a + b)
                                        store(product, down + q * LANES, fma(s, p, 0.0 - pl))
                                store(holds, (d + 1) * LANES, (1.0 - o) * on)
                                node = hi
                                done = False
                                break
                            z = 2 * here + side[node] * width
                            total = full(0.0)
                            place = (output + player[node]) * stride + row
                            if plain:
                                for q in range(points):
                                    r = load(below, zr + q * LANES)
                                    jumps = load(below, zl + q * LANES) - r
                                    p = load(product, here + q * LANES) * ws[q]
                                    total = fma(p, jumps, total)
                                    c = fma(ts[q], o, us[q] * a)
                                    store(below, z + q * LANES, fma(c, jumps, r))
                                gain = (o - a) * total
                            else:
                                surplus = full(0.0)
                                for q in range(points):
                                    r = load(below, zr + q * LANES)
                                    jumps = load(below, zl + q * LANES) - r
                                    p = load(product, here + q * LANES) * coefficient[co + 3 * padded + q]
                                    total = fma(p, jumps, total)
                                    surplus = fma(p, r, surplus)
                                    c = fma(on, fma(coefficient[co + 2 * padded + q], o, coefficient[co + q]), a)
                                    s = fma(on, coefficient[co + padded + q], a + b)
                                    store(below, z + q * LANES, fma(c, jumps, s * r))
                                gain = on * fma(o - a, total, surplus * (1.0 - a - b))
                            store(sums, place, load(sums, place) + gain)
                        if done:
                            break
