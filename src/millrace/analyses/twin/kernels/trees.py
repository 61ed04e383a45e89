"""Trees of one column given earlier ones: grown by a chi-square score over codes.

Splits: every code of every earlier column as a threshold (a set of codes for categories, ordered by reciprocal averaging).
With left counts L_k of n_k rows of class k, chi2 = (n sum L_k^2 / n_k - n_L^2) n / (n_L n_R), kept up by one addition a row,
so that a node costs a few steps a row and column, whatever the number of classes. Above `SEEN` rows a node is split by
evenly spaced rows of its own; all rows go on.
Of columns with an order each node makes its own classes, so that it goes on where all of its rows are in one class of the
whole. Leaves are `leaves`'s; random numbers `drawing`'s.
"""

from __future__ import annotations

from typing import Any

import numpy
from numba import njit
from numpy.typing import NDArray

SEEN = 8_192
FEW, NEAR = 16, 32_768
"""So many columns (FEW) are tried in every node of MIDDLE rows; of more, those go on that told more than chance in the node
above, and below NEAR rows the best of them."""
MIDDLE, SMALL = 2_048, 512
MOST, SOME, LEAST = 24, 12, 8
"""Of nodes that are larger than MIDDLE and SMALL rows, and of others. Fewer are faster, and better: with every column that is
tried, chance finds more in few rows (C2ST of a table of 60 columns: .515, and .529 with 24 throughout)."""
CLASSES = 16
TABLED = 1_024
"""Rows from which thresholds are found by a table of codes and classes."""
ROWS_A_CLASS = 5
"""A node has no more classes than leave so many rows to each."""


@njit(nogil=True, cache=True)
def _best_threshold(codes, y, n, inverse, total, min_leaf, place, counts, table, left):  # type: ignore[no-untyped-def]
    """(chi2, code) of the best threshold of one column. codes, y: uint8 (n,); inverse: 1 / n_k (CLASSES,), 0 for no rows.

    place: uint8 (n,), counts: (258,), table: int32 (256, CLASSES), left: int64 (CLASSES,), all scratch.
    """
    low, high = 255, 0
    for i in range(n):
        low, high = min(low, codes[i]), max(high, codes[i])
    if low >= high:
        return 0.0, -1
    if n >= TABLED:
        return _best_of_table(codes, y, n, low, high, inverse, total, min_leaf, table, left)
    span = high - low + 1
    counts[: span + 1] = 0
    for i in range(n):
        counts[codes[i] - low + 1] += 1
    for b in range(span):
        counts[b + 1] += counts[b]
    for i in range(n):
        b = codes[i] - low
        place[counts[b]] = y[i]
        counts[b] += 1
    left[:] = 0
    best, at, s, begin = 0.0, -1, 0.0, 0
    for b in range(span - 1):
        end = counts[b]
        for i in range(begin, end):
            k = place[i]
            s += (2.0 * left[k] + 1.0) * inverse[k]
            left[k] += 1
        if end > begin and end >= min_leaf:
            if n - end < min_leaf:
                break
            chi2 = (total * s - float(end) * end) * total / (float(end) * (n - end))
            if chi2 > best:
                best, at = chi2, b + low
        begin = end
    return best, at


@njit(nogil=True, cache=True)
def _best_of_table(codes, y, n, low, high, inverse, total, min_leaf, table, left):  # type: ignore[no-untyped-def]
    """The same where rows are many: counted by code and class first, so that a row costs one addition."""
    table[: high - low + 1] = 0
    for i in range(n):
        table[codes[i] - low, y[i]] += 1
    left[:] = 0
    part = numpy.zeros(CLASSES)
    best, at, end = 0.0, -1, 0
    for b in range(high - low):
        new = 0
        for k in range(CLASSES):
            new += table[b, k]
            left[k] += table[b, k]
        end += new
        if new == 0 or end < min_leaf:
            continue
        if n - end < min_leaf:
            break
        for k in range(CLASSES):
            part[k] = float(left[k]) * float(left[k]) * inverse[k]
        s = 0.0
        for k in range(4):  # a fixed order of additions: the same tree on every processor
            s += (part[k] + part[k + 8]) + (part[k + 4] + part[k + 12])
        chi2 = (total * s - float(end) * end) * total / (float(end) * (n - end))
        if chi2 > best:
            best, at = chi2, b + low
    return best, at


@njit(nogil=True, cache=True)
def _best_set(codes, y, n, m, width, n_k, total, min_leaf, table, score, order, left, mask):  # type: ignore[no-untyped-def]
    """chi2 of the best set of codes of a category that goes left, written into `mask` (4 words)."""
    for b in range(m):
        for k in range(width):
            table[b, k] = 0
    for i in range(n):
        table[codes[i], y[i]] += 1
    present = 0
    weight = numpy.zeros(width)
    for k in range(width):
        weight[k] = (k * 7 % width) + 0.01 * k
    for _ in range(4):
        mean, square = 0.0, 0.0
        for k in range(width):
            mean += weight[k] * n_k[k]
        mean /= total
        for k in range(width):
            weight[k] -= mean
            square += weight[k] * weight[k] * n_k[k]
        if square <= 0:
            break
        square = (square / total) ** 0.5
        for k in range(width):
            weight[k] /= square
        for b in range(m):
            t, c = 0.0, 0
            for k in range(width):
                t += weight[k] * table[b, k]
                c += table[b, k]
            score[b] = t / c if c else 1e30
        for k in range(width):
            t = 0.0
            for b in range(m):
                if table[b, k]:
                    t += score[b] * table[b, k]
            weight[k] = t / n_k[k] if n_k[k] else 0.0
    for b in range(m):
        order[b] = b
        c = 0
        for k in range(width):
            c += table[b, k]
        present += c > 0
        if c == 0:
            score[b] = 1e30
    for i in range(1, m):  # insertion: stable, and few
        b, v, j = order[i], score[order[i]], i - 1
        while j >= 0 and score[order[j]] > v:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = b
    for k in range(width):
        left[k] = 0
    best, at, end, s = 0.0, -1, 0, 0.0
    for p in range(present - 1):
        b = order[p]
        for k in range(width):
            c = table[b, k]
            if c:
                s += (2.0 * left[k] * c + float(c) * c) / n_k[k]
                left[k] += c
                end += c
        if end < min_leaf:
            continue
        if n - end < min_leaf:
            break
        chi2 = (total * s - float(end) * end) * total / (float(end) * (n - end)) - (present - 2)
        if chi2 > best:
            best, at = chi2, p
    for w in range(4):
        mask[w] = numpy.uint64(0)
    for p in range(at + 1):
        b = order[p]
        mask[b >> 6] |= numpy.uint64(1) << numpy.uint64(b & 63)
    return best


@njit(nogil=True, cache=True)
def _hold(X, extra, rows, m, features, many, held):  # type: ignore[no-untyped-def]
    """Codes of rows[:m] in features[:many], a feature after the other: read once, and then near."""
    columns = X.shape[1]
    for begin in range(0, m, 64):  # of so many rows a line of the cache is filled in each feature
        end = min(m, begin + 64)
        for q in range(many):
            f = features[q]
            if f < columns:
                for i in range(begin, end):
                    held[q, i] = X[rows[i], f]
            else:
                for i in range(begin, end):
                    held[q, i] = extra[rows[i]]


@njit(nogil=True, cache=True)
def grow(X, extra, sizes, nominal, features, y, width, ordered, index, min_leaf, z, most_depth):  # type: ignore[no-untyped-def]
    """Nodes of a tree that splits the rows `index` (int32, reordered so that each leaf's are together).

    X: uint8 (rows, columns), extra: uint8 (rows,), the column after them; both read-only. sizes: codes of each column.
    features: numbers of columns to split on. y: uint8 (rows,) classes below `width`; when `ordered`, codes, which each node puts
    into `width` classes of about as many of its own rows. Returns feature (-1: leaf), threshold (below -1: by the mask of number
    -2 - threshold), left (the right child follows it), begin, end, masks.
    """
    rows = index.size
    most = 2 * (rows // max(1, min_leaf)) + 3
    feature = numpy.full(most, -1, numpy.int32)
    threshold = numpy.zeros(most, numpy.int32)
    left_of, depth = numpy.zeros(most, numpy.int32), numpy.zeros(most, numpy.int32)
    begin_of, end_of = numpy.zeros(most, numpy.int32), numpy.zeros(most, numpy.int32)
    masks = numpy.zeros((most, 4), numpy.uint64)
    seen = min(rows, SEEN)
    codes, its, place = numpy.zeros(seen, numpy.uint8), numpy.zeros(seen, numpy.uint8), numpy.zeros(seen, numpy.uint8)
    counts, left = numpy.zeros(258, numpy.int64), numpy.zeros(CLASSES, numpy.int64)
    n_k, inverse = numpy.zeros(CLASSES), numpy.zeros(CLASSES)
    table = numpy.zeros((256, CLASSES), numpy.int32)
    own, class_of = numpy.zeros(256, numpy.int64), numpy.arange(256)
    score, order = numpy.zeros(256), numpy.zeros(256, numpy.int64)
    mask, best_mask = numpy.zeros(4, numpy.uint64), numpy.zeros(4, numpy.uint64)
    # What is held: rows first_held .. last_held of the index in the features of the node that they were read for, or some rows
    # of a larger node (then last_held is 0). where: place among them of each row of the index, while it is reordered.
    held, held_y = numpy.zeros((features.size, seen + 192), numpy.uint8), numpy.zeros(seen, numpy.uint8)
    which, where = numpy.zeros(seen, numpy.int32), numpy.arange(seen).astype(numpy.int32)
    slot, first_held, last_held = numpy.zeros(X.shape[1] + 1, numpy.int64), 0, 0
    spare, spare_where = numpy.zeros(rows, numpy.int32), numpy.zeros(seen, numpy.int32)
    stack = numpy.zeros(most, numpy.int32)
    # Columns that are tried at each depth: those of the node above that told more than chance there, when there are many.
    tried, many = numpy.zeros((most_depth + 2, features.size), numpy.int64), numpy.zeros(most_depth + 2, numpy.int64)
    tried[0], many[0] = features, features.size
    told = numpy.zeros(features.size)
    end_of[0], made, top = rows, 1, 1
    while top:
        top -= 1
        node = stack[top]
        a, b = begin_of[node], end_of[node]
        n = b - a
        level = depth[node]
        if n < 2 * min_leaf or level >= most_depth or made + 2 > most or many[level] == 0:
            continue
        m = min(n, SEEN)
        if not (first_held <= a and b <= last_held):
            for i in range(m):
                which[i] = index[a + (i * n) // m]
                where[i] = i
                held_y[i] = y[which[i]]
            _hold(X, extra, which, m, tried[level], many[level], held)
            for q in range(many[level]):
                slot[tried[level, q]] = q
            first_held, last_held = a, b if n <= SEEN else 0
        at = where[a - first_held : a - first_held + m]
        for i in range(m):
            its[i] = held_y[at[i]]
        if ordered:
            _classes(its, m, width, own, class_of)
        n_k[:] = 0.0
        for i in range(m):
            n_k[its[i]] += 1.0
        present = 0
        for k in range(CLASSES):
            inverse[k] = 1.0 / n_k[k] if n_k[k] > 0 else 0.0
            present += n_k[k] > 0
        if present < 2:
            continue
        least = max(1, (min_leaf * m) // n)
        free = present - 1.0
        best, best_f, best_t = free + z * (2.0 * free) ** 0.5, -1, -1
        for q in range(many[level]):
            f = tried[level, q]
            column = held[slot[f]]
            for i in range(m):
                codes[i] = column[at[i]]
            if nominal[f]:
                found = _best_set(codes, its, m, sizes[f], width, n_k, float(m), least, table, score, order, left, mask)
                told[q] = found
                if found > best:
                    best, best_f, best_t = found, f, -2
                    best_mask[:] = mask
            else:
                found, t = _best_threshold(codes, its, m, inverse, float(m), least, place, counts, table, left)
                told[q] = found
                if found > best:
                    best, best_f, best_t = found, f, t
        if best_f < 0:
            continue
        low, high = a, 0
        whole = n <= SEEN
        column = held[slot[best_f]]
        for i in range(a, b):
            r = index[i]
            w = where[i - first_held] if whole else 0
            c = column[w] if whole else (X[r, best_f] if best_f < X.shape[1] else extra[r])
            if best_t == -2:
                goes = (best_mask[c >> 6] >> numpy.uint64(c & 63)) & numpy.uint64(1) == numpy.uint64(1)
            else:
                goes = c <= best_t
            if goes:
                index[low] = r
                if whole:
                    where[low - first_held] = w
                low += 1
            else:
                spare[high] = r
                if whole:
                    spare_where[high] = w
                high += 1
        for i in range(high):
            index[low + i] = spare[i]
        if whole:
            for i in range(high):
                where[low + i - first_held] = spare_where[i]
        if low - a < min_leaf or high < min_leaf:
            continue
        kept, least_told = 0, free
        best_of = MOST if n >= MIDDLE else SOME if n >= SMALL else LEAST
        if many[level] > best_of and n < NEAR:
            least_told = max(free, numpy.sort(told[: many[level]])[many[level] - best_of])
        for q in range(many[level]):
            if (many[level] <= FEW and n >= MIDDLE) or told[q] >= least_told:
                tried[level + 1, kept] = tried[level, q]
                kept += 1
        many[level + 1] = kept
        feature[node], threshold[node], left_of[node] = best_f, best_t, made
        masks[node] = best_mask
        begin_of[made], end_of[made], begin_of[made + 1], end_of[made + 1] = a, low, low, b
        for child in range(made, made + 2):
            depth[child] = level + 1
            stack[top] = child
            top += 1
        made += 2
    sets = 0
    for node in range(made):
        if feature[node] >= 0 and threshold[node] == -2:
            masks[sets] = masks[node]  # never after the node: what is written over has been read
            threshold[node] = -2 - sets
            sets += 1
    return (
        feature[:made].copy(), threshold[:made].copy(), left_of[:made].copy(), begin_of[:made].copy(), end_of[:made].copy(),
        masks[:sets].copy(),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _classes(its, m, width, counts, class_of):  # type: ignore[no-untyped-def]
    """Codes of m rows become classes of about as many rows each: so many that one has ROWS_A_CLASS, `width` at most."""
    counts[:] = 0
    for i in range(m):
        counts[its[i]] += 1
    most = min(width, max(2, m // ROWS_A_CLASS))
    passed, last, at = 0, -1, -1
    for c in range(256):
        if counts[c]:
            k = min(most - 1, int((passed + 0.5 * counts[c]) * most / m))
            if k != last:
                at += 1
                last = k
            class_of[c] = at
            passed += counts[c]
    for i in range(m):
        its[i] = class_of[its[i]]


def coarse(codes: NDArray[Any], sizes: int, nominal: bool, most: int = CLASSES) -> tuple[NDArray[numpy.uint8], int]:
    """(class of each code, how many): codes in stretches of about as many rows each; of categories the most common alone."""
    counts = numpy.bincount(codes, minlength=sizes)[:sizes]
    if sizes <= most:
        return numpy.arange(256).astype(numpy.uint8), max(1, sizes)
    if nominal:
        order = numpy.argsort(-counts, kind="stable")
        table = numpy.full(256, most - 1, numpy.uint8)
        table[order[: most - 1]] = numpy.arange(most - 1)
        return table, most
    share = (numpy.cumsum(counts) - counts / 2) / max(1, counts.sum())
    made = numpy.unique(numpy.minimum((share * most).astype(numpy.int64), most - 1), return_inverse=True)[1]
    table = numpy.zeros(256, numpy.uint8)
    table[:sizes] = made
    return table, int(made.max()) + 1
