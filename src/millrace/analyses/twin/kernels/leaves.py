"""Leaves of the trees of `trees`, turned into what twins are drawn from.

A leaf of codes holds its codes with cumulative counts. A leaf of ranks holds what is common or missing as it is, and of the
rest the sorted residuals of a plane on a few other columns: single real values are not in it, and rows of different leaves
cannot be put together.
"""

from __future__ import annotations

import numpy
from numba import njit

LEAST_LINE = 15
"""Rows of a leaf from which a plane is made of it."""
MOSTLY = 0.8
"""Share of a leaf's rows that must have a column for a plane to go by it."""
LEAST_F, NEARLY_ALIKE = 4.0, 1e-6
"""A column stays in a plane when what it tells is so many times chance; how far columns may be each other's sums."""
MISSING = 65_535
FINEST = 1.0 / 64.0
"""Ranks that a residual is told to, at least: what is held is 16 bits wide."""


@njit(nogil=True, cache=True)
def walk_of(feature, threshold, left):  # type: ignore[no-untyped-def]
    """(walk, leaf): what a row reads on its way down, int32 (nodes, 3): feature (-1: leaf), threshold, left child or number of
    the leaf; and the node of each leaf."""
    nodes = feature.size
    walk, leaf, found = numpy.zeros((nodes, 3), numpy.int32), numpy.zeros(nodes, numpy.int32), 0
    for node in range(nodes):
        walk[node, 0], walk[node, 1], walk[node, 2] = feature[node], threshold[node], left[node]
        if feature[node] < 0:
            walk[node, 2] = found
            leaf[found] = node
            found += 1
    return walk, leaf[:found].copy()


@njit(nogil=True, cache=True)
def leaves_of_codes(leaf, begin, end, index, y):  # type: ignore[no-untyped-def]
    """Codes of each leaf with cumulative counts: start int32 (leaves + 1,), codes uint8, cumulative int32."""
    start = numpy.zeros(leaf.size + 1, numpy.int32)
    codes = numpy.zeros(index.size, numpy.uint8)
    cumulative = numpy.zeros(index.size, numpy.int32)
    counts = numpy.zeros(256, numpy.int64)
    at = 0
    for k in range(leaf.size):
        counts[:] = 0
        for i in range(begin[leaf[k]], end[leaf[k]]):
            counts[y[index[i]]] += 1
        total = 0
        for c in range(256):
            if counts[c]:
                total += counts[c]
                codes[at], cumulative[at] = c, total
                at += 1
        start[k + 1] = at
    return start, codes[:at].copy(), cumulative[:at].copy()


@njit(nogil=True, cache=True)
def _fitted(gram, count, n, least_r2, slopes):  # type: ignore[no-untyped-def]
    """Slopes of a least-squares plane from centred cross-products; gram: (count + 1, count + 1), the target last. What tells less
    than chance is left out, one after the other. True when the rest explains `least_r2` of the spread, for their number."""
    yy = gram[count, count]
    slopes[:] = 0.0
    active = numpy.zeros(count, numpy.int64)
    p = 0
    for q in range(count):
        if gram[q, q] > 0:
            active[p] = q
            p += 1
    while p and yy > 0:
        A, b = numpy.zeros((p, p)), numpy.zeros(p)
        for u in range(p):
            for v in range(p):
                A[u, v] = gram[active[u], active[v]] / (gram[active[u], active[u]] * gram[active[v], active[v]]) ** 0.5
            A[u, u] += NEARLY_ALIKE
            b[u] = gram[active[u], count] / (gram[active[u], active[u]] * yy) ** 0.5
        inverse = numpy.linalg.inv(A)
        beta = inverse @ b
        left = max(1.0 - numpy.dot(beta, b), 1e-9)
        spread = left / max(n - p - 1, 1)
        worst, least = -1, LEAST_F
        for u in range(p):
            f = beta[u] * beta[u] / (spread * inverse[u, u])
            if f < least:
                worst, least = u, f
        if worst < 0:
            if 1.0 - left * (n - 1) / max(n - p - 1, 1) <= least_r2:
                return False
            for u in range(p):
                slopes[active[u]] = beta[u] * (yy / gram[active[u], active[u]]) ** 0.5
            return True
        for u in range(worst, p - 1):
            active[u] = active[u + 1]
        p -= 1
    return False


@njit(nogil=True, cache=True)
def leaves_of_ranks(leaf, begin, end, index, y, R, candidates, spikes, own_spike, least_r2):  # type: ignore[no-untyped-def]
    """What twins are drawn from in each leaf of ranks `y` (uint16, rows).

    R: uint16 (candidates, rows), ranks of the columns that a plane may go by; spikes: bool (candidates, 65536). Returns
    `start`, int32 (leaves + 1,), where the rows of each leaf are in `held`; by leaf `fixed` (how many stand at its beginning
    that stay as they are), `plane` (row of `slope` and `unit`, -1 none), `low`, `high` (range of the ranks that move); `slope`,
    float32 (planes, candidates), 0 where a plane does not go by one; `unit`, float32 (planes, 2); and `held`, uint16 (rows,):
    ranks that stay, then what moves, sorted: ranks, or of a plane residuals as unit[0] + unit[1] * held.
    """
    leaves = leaf.size
    start, fixed, plane = (
        numpy.zeros(leaves + 1, numpy.int32),
        numpy.zeros(leaves, numpy.int32),
        numpy.full(leaves, -1, numpy.int32),
    )
    low, high = numpy.zeros(leaves, numpy.uint16), numpy.zeros(leaves, numpy.uint16)
    slope = numpy.zeros((leaves if candidates else 0, max(candidates, 1)), numpy.float32)
    unit = numpy.zeros((leaves if candidates else 0, 2), numpy.float32)
    held, rest = numpy.zeros(index.size, numpy.uint16), numpy.zeros(index.size)
    gram, mean, row = (
        numpy.zeros((candidates + 1, candidates + 1)),
        numpy.zeros(candidates + 1),
        numpy.zeros(candidates + 1),
    )
    slopes, usable = numpy.zeros(candidates), numpy.zeros(candidates, numpy.bool_)
    planes = 0
    for k in range(leaves):
        a, b = begin[leaf[k]], end[leaf[k]]
        found = False
        if b - a >= LEAST_LINE and candidates:
            moving = 0
            for i in range(a, b):
                v = y[index[i]]
                moving += v != MISSING and not own_spike[v]
            for q in range(candidates):
                n = 0
                for i in range(a, b):
                    r = index[i]
                    v, x = y[r], R[q, r]
                    n += not (v == MISSING or own_spike[v] or x == MISSING or spikes[q, x])
                usable[q] = n >= LEAST_LINE and n >= MOSTLY * moving
            gram[:], mean[:] = 0.0, 0.0
            n = 0
            for turn in range(2):
                for i in range(a, b):
                    r = index[i]
                    v = y[r]
                    good = v != MISSING and not own_spike[v]
                    for q in range(candidates):
                        if usable[q]:
                            x = R[q, r]
                            good = good and x != MISSING and not spikes[q, x]
                            row[q] = x
                    if not good:
                        continue
                    row[candidates] = v
                    if turn == 0:
                        n += 1
                        mean += row
                    else:
                        for q in range(candidates + 1):
                            for w in range(q, candidates + 1):
                                gram[q, w] += (row[q] - mean[q]) * (row[w] - mean[w])
                if turn == 0 and n:
                    mean /= n
            for q in range(candidates):
                if not usable[q]:
                    gram[q, :] = 0.0
                    gram[:, q] = 0.0
                for w in range(q):
                    gram[q, w] = gram[w, q]
            for w in range(candidates):
                gram[candidates, w] = gram[w, candidates]
            found = n >= LEAST_LINE and _fitted(gram, candidates, n, least_r2, slopes)
        if found:
            plane[k] = planes
            for q in range(candidates):
                slopes[q] = numpy.float32(slopes[q])
                slope[planes, q] = slopes[q]
        at = start[k]
        stay, move = at, 0
        lowest, highest = MISSING, 0
        for i in range(a, b):
            r = index[i]
            v = y[r]
            odd = v == MISSING or own_spike[v]
            x_of = float(v)
            if found and not odd:
                for q in range(candidates):
                    if slopes[q] != 0.0:
                        x = R[q, r]
                        odd = odd or x == MISSING or spikes[q, x]
                        x_of -= slopes[q] * x
            if odd:
                held[stay] = v
                stay += 1
            else:
                rest[move] = x_of
                move += 1
                lowest, highest = min(lowest, v), max(highest, v)
        held[at:stay] = numpy.sort(held[at:stay])
        moving = numpy.sort(rest[:move])
        base, step = numpy.float32(0.0), numpy.float32(1.0)
        if found:
            if move:
                base = numpy.float32(moving[0])
                step = numpy.float32(max((moving[move - 1] - moving[0]) / 65_535.0, FINEST))
            unit[planes, 0], unit[planes, 1] = base, step
            planes += 1
        for i in range(move):
            held[stay + i] = numpy.uint16(min(max((moving[i] - base) / step + 0.5, 0.0), 65_535.0))
        start[k + 1] = at + (b - a)
        fixed[k], low[k], high[k] = stay - at, lowest if move else 0, highest
    return start, fixed, plane, low, high, slope[:planes].copy(), unit[:planes].copy(), held
