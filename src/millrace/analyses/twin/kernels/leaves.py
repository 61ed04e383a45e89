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


@njit(nogil=True, cache=True)
def leaves_of_codes(feature, begin, end, index, y):  # type: ignore[no-untyped-def]
    """Codes of each leaf with cumulative counts: (start, stop) by node, codes uint8, cumulative int32."""
    nodes = feature.size
    start, stop = numpy.zeros(nodes, numpy.int32), numpy.zeros(nodes, numpy.int32)
    codes = numpy.zeros(index.size, numpy.uint8)
    cumulative = numpy.zeros(index.size, numpy.int32)
    counts = numpy.zeros(256, numpy.int64)
    at = 0
    for node in range(nodes):
        if feature[node] >= 0:
            continue
        counts[:] = 0
        for i in range(begin[node], end[node]):
            counts[y[index[i]]] += 1
        start[node] = at
        total = 0
        for c in range(256):
            if counts[c]:
                total += counts[c]
                codes[at], cumulative[at] = c, total
                at += 1
        stop[node] = at
    return start, stop, codes[:at].copy(), cumulative[:at].copy()


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
def leaves_of_ranks(feature, begin, end, index, y, R, candidates, spikes, own_spike, least_r2):  # type: ignore[no-untyped-def]
    """What twins are drawn from in each leaf of ranks `y` (uint16, rows).

    R: uint16 (candidates, rows), ranks of the columns that a plane may go by; spikes: bool (candidates, 65536). Returns by
    node `fixed` (how many stand at its beginning that stay as they are), `plane` (row of `slope`, -1 none), `low`, `high`
    (range of the ranks that move); `slope`, float32 (planes, candidates), 0 where a plane does not go by one; and `held`,
    float32 (rows,): ranks that stay, then sorted residuals.
    """
    nodes = feature.size
    fixed, plane = numpy.zeros(nodes, numpy.int32), numpy.full(nodes, -1, numpy.int32)
    low, high = numpy.zeros(nodes, numpy.float32), numpy.zeros(nodes, numpy.float32)
    slope = numpy.zeros((nodes if candidates else 0, max(candidates, 1)), numpy.float32)
    held = numpy.zeros(index.size, numpy.float32)
    gram, mean, row = (
        numpy.zeros((candidates + 1, candidates + 1)),
        numpy.zeros(candidates + 1),
        numpy.zeros(candidates + 1),
    )
    slopes, usable = numpy.zeros(candidates), numpy.zeros(candidates, numpy.bool_)
    planes = 0
    for node in range(nodes):
        if feature[node] >= 0:
            continue
        a, b = begin[node], end[node]
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
            plane[node] = planes
            for q in range(candidates):
                slopes[q] = numpy.float32(slopes[q])
                slope[planes, q] = slopes[q]
            planes += 1
        stay, move = a, b
        lowest, highest = 1e9, -1.0
        for i in range(a, b):
            r = index[i]
            v = y[r]
            odd = v == MISSING or own_spike[v]
            rest = float(v)
            if found and not odd:
                for q in range(candidates):
                    if slopes[q] != 0.0:
                        x = R[q, r]
                        odd = odd or x == MISSING or spikes[q, x]
                        rest -= slopes[q] * x
            if odd:
                held[stay] = v
                stay += 1
            else:
                move -= 1
                held[move] = rest
                lowest, highest = min(lowest, float(v)), max(highest, float(v))
        held[a:stay] = numpy.sort(held[a:stay])
        held[stay:b] = numpy.sort(held[stay:b])
        fixed[node], low[node], high[node] = stay - a, max(lowest, 0.0) if highest >= 0 else 0.0, max(highest, 0.0)
    return fixed, plane, low, high, slope[:planes].copy(), held
