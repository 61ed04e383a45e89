"""Drawing twins: a column of many rows at a time, by the trees of `trees`. Random numbers belong to (seed, row, place, attempt).

So row i is the same in every chunk, on every engine and for every number of twins. Scalar code without `parallel`: rows are
spread over processes by the engine.
"""

from __future__ import annotations

import numpy
from numba import njit

MISSING = 65_535
TRIES = 24
"""Values drawn in a leaf at most until one is within its bounds; then the nearest bound is taken."""
TOGETHER = 1_024
"""Rows that go down a tree together, a level at a time: one need not wait for what another reads."""


@njit(nogil=True, cache=True, inline="always")
def mix(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return x ^ (x >> numpy.uint64(31))


@njit(nogil=True, cache=True, inline="always")
def start(seed, row, place, attempt):  # type: ignore[no-untyped-def]
    x = mix(numpy.uint64(seed) + numpy.uint64(0x9E3779B97F4A7C15) * (numpy.uint64(row) + numpy.uint64(1)))
    y = numpy.uint64(place) * numpy.uint64(0xD1B54A32D192ED03) + numpy.uint64(attempt) * numpy.uint64(
        0x8CB92BA72F3D8DD7
    )
    return mix(x ^ mix(y + numpy.uint64(0x632BE59BD9B4E019)))


@njit(nogil=True, cache=True, inline="always")
def unit(x):  # type: ignore[no-untyped-def]
    """In [0, 1)."""
    return (x >> numpy.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(nogil=True, cache=True)
def leaves_of(C, walk, masks):  # type: ignore[no-untyped-def]
    """int32 (rows,): the leaf that each row of C, uint8 (columns, rows), ends in. walk, masks: see `leaves.walk_of`."""
    n = C.shape[1]
    found = numpy.zeros(n, numpy.int32)
    at, row = numpy.zeros(TOGETHER, numpy.int32), numpy.zeros(TOGETHER, numpy.int32)
    for start in range(0, n, TOGETHER):
        left = min(TOGETHER, n - start)
        for i in range(left):
            at[i], row[i] = 0, start + i
        while left:
            going = 0
            for i in range(left):
                node, r = at[i], row[i]
                f, t, following = walk[node, 0], walk[node, 1], walk[node, 2]
                if f < 0:
                    found[r] = following
                    continue
                c = C[f, r]
                if t < -1:
                    following += 1 - numpy.int32((masks[-2 - t, c >> 6] >> numpy.uint64(c & 63)) & numpy.uint64(1))
                else:
                    following += numpy.int32(c > t)
                at[going], row[going] = following, r
                going += 1
            left = going
    return found


@njit(nogil=True, cache=True)
def draw_codes(  # type: ignore[no-untyped-def]
    C, column, V, rows, attempts, seed, place, leaf, start_of, codes, cumulative, values, low, high, allowed, partners, tables,
    share, ok,
):  # fmt: skip
    """Codes of one column into C[column], values into V[column].

    low, high: bounds by row. allowed: bool (256,), what a condition leaves; tables: bool (partners, 256, 256), what goes
    together with the partner's code. share: multiplied by the part of the leaf that `allowed` leaves. ok: False where nothing
    is left to draw.
    """
    for i in range(rows.size):
        if not ok[i]:
            continue
        a, b = start_of[leaf[i]], start_of[leaf[i] + 1]
        total, within, fits = 0.0, 0.0, 0.0
        before = 0
        for q in range(a, b):
            c = codes[q]
            w = cumulative[q] - before
            before = cumulative[q]
            good = values[c] != values[c] or (values[c] >= low[i] and values[c] <= high[i])
            for p in range(partners.size):
                good = good and tables[p, C[partners[p], i], c]
            total += w
            if good:
                within += w
                if allowed[c]:
                    fits += w
        if fits == 0.0:
            ok[i] = False
            continue
        share[i] *= fits / within
        at = unit(start(seed, rows[i], place, attempts[i])) * fits
        before, passed = 0, 0.0
        for q in range(a, b):
            c = codes[q]
            w = cumulative[q] - before
            before = cumulative[q]
            good = allowed[c] and (values[c] != values[c] or (values[c] >= low[i] and values[c] <= high[i]))
            for p in range(partners.size):
                good = good and tables[p, C[partners[p], i], c]
            if good:
                C[column, i] = c
                V[column, i] = values[c]
                passed += w
                if passed > at:
                    break


@njit(nogil=True, cache=True)
def draw_ranks(  # type: ignore[no-untyped-def]
    C, R, column, V, rows, attempts, seed, place, leaf, start_of, fixed, plane, slope, unit_of, lowest, highest, held, lines,
    values, codes, spike, common, missing_code, scale, low, high, ok,
):  # fmt: skip
    """Ranks of one column into R[column], codes into C[column], values into V[column].

    spike: bool by rank, values that stay as they are; common: values that may be copied. lines: number in R
    of each candidate of a plane. low, high: bounds by row. scale: values are multiples of its
    inverse (0: any).
    """
    n_values = values.size
    for i in range(rows.size):
        if not ok[i]:
            continue
        node = leaf[i]
        a, n, stay = start_of[node], start_of[node + 1] - start_of[node], fixed[node]
        h = start(seed, rows[i], place, attempts[i])
        moved, known, which = 0.0, True, plane[node]
        base, step = 0.0, 1.0
        if which >= 0:
            base, step = unit_of[which, 0], unit_of[which, 1]
            for q in range(lines.size):
                if slope[which, q] != 0.0:
                    x = R[lines[q], i]
                    known = known and x != MISSING
                    moved += slope[which, q] * x
        found = False
        value, rank = 0.0, 0
        for t in range(TRIES):
            h = mix(h + numpy.uint64(0x9E3779B97F4A7C15))
            u = unit(h) * n
            k = int(u)
            if k < stay:
                rank = int(held[a + k])
                if rank == MISSING:
                    value = numpy.nan
                    found = True
                    break
                y = rank + unit(mix(h))
            else:
                m = n - stay
                j = k - stay
                v = base + step * held[a + k]
                part = u - k - 0.5
                wide = 4.0 * step * (float(held[a + n - 1]) - float(held[a + stay])) / m + 1.0
                if part < 0:
                    gap = v - (base + step * held[a + k - 1]) if j > 0 else 1.0
                else:
                    gap = base + step * held[a + k + 1] - v if j < m - 1 else 1.0
                y = v + part * min(max(gap, 1.0), wide)
                if known:
                    y += moved
                else:
                    y = lowest[node] + unit(mix(h)) * (highest[node] - lowest[node])
                if y < lowest[node]:
                    y = min(2.0 * lowest[node] - y, highest[node])
                elif y > highest[node]:
                    y = max(2.0 * highest[node] - y, lowest[node])
                if y < 0.0:
                    y = 0.0
                rank = min(int(y), n_values - 1)
                if spike[rank] and t < 4:  # a value that stays as it is has its own share of the leaf
                    continue
            if common[rank]:
                value = values[rank]
            else:
                part = min(y - rank, 0.999)
                other = rank + 1 if rank + 1 < n_values else rank - 1
                if common[other] and rank > 0 and not common[rank - 1]:
                    other = rank - 1
                value = values[rank] + part * (values[other] - values[rank])
                if scale > 0.0:
                    value = numpy.floor(value * scale + 0.5) / scale
            if value >= low[i] and value <= high[i]:
                found = True
                break
        if not found:
            if low[i] > high[i]:
                ok[i] = False
                continue
            value = min(max(value, low[i]), high[i])
            if value < values[0] or value > values[n_values - 1]:
                ok[i] = False
                continue
            below, above = 0, n_values
            while below < above:
                middle = (below + above) >> 1
                if values[middle] < value:
                    below = middle + 1
                else:
                    above = middle
            rank = min(below, n_values - 1)
        V[column, i] = value
        if value != value:
            R[column, i] = MISSING
            C[column, i] = missing_code
        else:
            R[column, i] = rank
            C[column, i] = codes[rank]


@njit(nogil=True, cache=True)
def place_index(L, grid, codes, ranks):  # type: ignore[no-untyped-def]
    """The ridge index L (rows,) as codes below 250 and ranks, by its quantiles `grid`."""
    n = grid.size
    buckets = 2 * n if L.size >= n else 1
    low, scale = grid[0], buckets / max(float(grid[n - 1]) - float(grid[0]), 1e-30)
    first = numpy.zeros(
        buckets + 2, numpy.int64
    )  # places of the grid in buckets of equal width: few are left to search
    for k in range(n):
        first[min(int((float(grid[k]) - low) * scale), buckets - 1) + 1] += 1
    for k in range(buckets):
        first[k + 1] += first[k]
    for i in range(L.size):
        bucket = int(min(max((float(L[i]) - low) * scale, 0.0), buckets - 1.0))
        below, above = first[bucket], first[bucket + 1]
        while below < above:
            middle = (below + above) >> 1
            if grid[middle] < L[i]:
                below = middle + 1
            else:
                above = middle
        r = min(below, n - 1) * 65_533 // max(1, n - 1)
        ranks[i] = r
        codes[i] = r * 250 // 65_534


@njit(nogil=True, cache=True)
def units(seed, rows, place, attempts):  # type: ignore[no-untyped-def]
    """float64 (rows,) in [0, 1), of these rows, place and attempts."""
    found = numpy.zeros(rows.size)
    for i in range(rows.size):
        found[i] = unit(start(seed, rows[i], place, attempts[i]))
    return found
