"""Interventional SHAP values of one leaf from pairs of a row's pattern and a background row's pattern.

For leaves that a table cannot hold, or that are not worth one: any number of distinct features on the path. With A,
M and m as in `tables`, a row is reached by a background row only when M is within A, and then, with a = |M|, each
feature of M gains (a - 1)! m! / (a + m)! and each feature that the row misses loses a! (m - 1)! / (a + m)!, times the
leaf's value and the background row's weight.

Background rows with the same M are one pattern with their weights added. For a block of rows the conditions lie as
one bit a row, so "M is within A" is an `and` of |M| words for 64 rows at a time: pairs that do not meet (nearly all,
for a deep leaf) cost a fraction of a nanosecond. Sums go in the order of the background's patterns, row by row: no
value depends on the block. Does not decide which leaves come here (see `tables`).
"""

from __future__ import annotations

from math import comb

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.lanes import (
    LANES,
    aligned_zeros,
    first_bit,
    fma,
    load,
    read_only,
    store,
    writable,
)
from millrace.analyses.explain.kernels.patterns import WORD, met_words

_CHUNK = 512
"""Background patterns that are worked on together: bounds the scratch, whatever the background."""


def pair_weights(most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(gain, loss)[most + 1, most + 1] by (a, m) with a + m <= most, correctly rounded; 0 where there is none."""
    gain, loss = np.zeros((most + 1, most + 1)), np.zeros((most + 1, most + 1))
    for a in range(most + 1):
        for m in range(most + 1 - a):
            ways = comb(a + m, a)
            if a:
                gain[a, m] = 1 / (a * ways)
            if m:
                loss[a, m] = 1 / (m * ways)
    return gain, loss


def pair_bytes(most_distinct: int, background_rows: int, block: int) -> int:
    """Scratch of `pair_values` for a leaf with that many distinct features and blocks of so many rows."""
    wide, padded = -(-most_distinct // WORD), -(-most_distinct // LANES) * LANES
    words, room = -(-block // WORD), -(-background_rows // WORD) * WORD
    patterns = room * wide * 8 + background_rows * 8 + 4 * max(16, 4 * background_rows)
    return patterns + 8 * (words * (most_distinct + _CHUNK) + _CHUNK * padded + words * WORD * (padded + 2))


@njit(cache=True)
def _distinct_patterns(  # type: ignore[no-untyped-def]
    d, feature_start, literal_right, literal_answer, answers, words, weights, missed, seen, share
):
    """Background patterns: missed[pattern * w : ...] (w words of 64 features), share[pattern]; returns how many.

    In order of first appearance; found again by hashing (`seen` holds pattern + 1).
    """
    n, wide = len(weights), (d + WORD - 1) // WORD
    missed[: words * WORD * wide] = np.uint64(0)
    one = np.uint64(1)
    for j in range(d):
        for w in range(words):
            met = ~np.uint64(0)
            for place in range(feature_start[j], feature_start[j + 1]):
                flip = ~np.uint64(0) if literal_right[place] else np.uint64(0)
                met &= answers[np.int64(literal_answer[place]) * words + w] ^ flip
            misses = ~met
            column, shift = j // WORD, np.uint64(j % WORD)
            for k in range(WORD):
                missed[(w * WORD + k) * wide + column] |= ((misses >> np.uint64(k)) & one) << shift
    seen[:] = 0
    last, found = len(seen) - 1, 0
    for row in range(n):
        if weights[row] == 0.0:
            continue
        key = np.uint64(0)
        for w in range(wide):
            key = (key ^ missed[row * wide + w]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        place = np.int64(key & np.uint64(last))
        while True:
            pattern = seen[place] - 1
            if pattern < 0:
                for w in range(wide):
                    missed[found * wide + w] = missed[row * wide + w]
                share[found] = weights[row]
                found += 1
                seen[place] = found
                break
            same = True
            for w in range(wide):
                same &= missed[pattern * wide + w] == missed[row * wide + w]
            if same:
                share[pattern] += weights[row]
                break
            place = (place + 1) & last
    return found


_BYTES = read_only(types.uint8)
_INTS, _LONGS, _WORDS = writable(types.int32), read_only(types.int64), writable(types.uint64)
_READ_INTS, _FLOATS, _TABLE = read_only(types.int32), read_only(types.float64), read_only(types.float64, 2)


@njit(
    types.void(
        *(types.int64, types.int64, _READ_INTS, _READ_INTS, _BYTES, _READ_INTS, _READ_INTS, types.int64),
        *(_TABLE, types.int64, types.int64, read_only(types.uint64), _FLOATS, _TABLE, _TABLE),
        *(_WORDS, types.int64, types.int64, types.int64, types.int64, types.int64, writable(types.float64)),
    ),
    cache=True,
)
def pair_values(  # type: ignore[no-untyped-def]
    first, last, literal_bit, literal_row, literal_right, literal_answer, column_slot, first_column,
    value, leaf, output, answers, weights, gain, loss,
    bits, words, stride, rows, n_used, at, sums,
):  # fmt: skip
    """Add the values of one leaf, for rows at .. at + rows of a block, to sums (as in `quadrature.walk_passes`).

    Literals first .. last as in `tables.list_literals`; literal_answer: their rows in answers, which hold the bits of
    the background. bits: the answers of the block's own rows. words: of 64 rows, in bits.
    """
    answer_words = (len(weights) + WORD - 1) // WORD
    d = np.int64(literal_bit[last - 1]) + 1
    wide, padded = (d + WORD - 1) // WORD, (d + LANES - 1) // LANES * LANES
    feature_start = np.empty(d + 1, np.int64)
    feature_start[0] = first
    for place in range(first, last):
        feature_start[literal_bit[place] + 1] = place + 1
    size = 16
    while size < 2 * len(weights):
        size *= 2
    missed, share = np.empty(answer_words * WORD * wide, np.uint64), np.empty(len(weights))
    patterns = _distinct_patterns(
        d, feature_start, literal_right, literal_answer, answers, answer_words, weights, missed,
        np.empty(size, np.int32), share,
    )  # fmt: skip
    met = np.empty(d * words, np.uint64)
    for j in range(d):
        met_words(feature_start[j], feature_start[j + 1], literal_row, literal_right, bits, words, met, j * words)
    real = np.empty(words, np.uint64)  # rows that are no padding
    for w in range(words):
        here = min(WORD, rows - w * WORD)
        real[w] = ~np.uint64(0) if here >= WORD else (np.uint64(1) << np.uint64(max(0, here))) - np.uint64(1)
    meets = np.empty(_CHUNK * words, np.uint64)
    absent = aligned_zeros(_CHUNK * padded)
    size_of = np.empty(_CHUNK, np.int64)
    gained, lost = aligned_zeros(words * WORD * padded), np.zeros(words * WORD)
    misses = np.zeros(words * WORD, np.int64)
    touched = np.zeros(words, np.uint64)
    one = np.uint64(1)
    for chunk in range(0, patterns, _CHUNK):
        here = min(_CHUNK, patterns - chunk)
        for p in range(here):
            for w in range(words):
                meets[p * words + w] = real[w]
            count = 0
            for j in range(d):
                gone = missed[(chunk + p) * wide + j // WORD] >> np.uint64(j % WORD) & one
                absent[p * padded + j] = np.float64(gone)
                if gone:
                    count += 1
                    for w in range(words):
                        meets[p * words + w] &= met[j * words + w]
            size_of[p] = count
        for w in range(words):
            for p in range(here):
                hits = meets[p * words + w]
                while hits:
                    lowest = hits & (~hits + one)
                    hits ^= lowest
                    row = w * WORD + first_bit(lowest)
                    if not touched[w] & lowest:
                        touched[w] |= lowest
                        missing = 0
                        for j in range(d):
                            missing += 1 - np.int64(met[j * words + w] >> np.uint64(row % WORD) & one)
                        misses[row] = missing
                    a, m = size_of[p], misses[row]
                    lost[row] += share[chunk + p] * loss[a, m]
                    scale = share[chunk + p] * gain[a, m]
                    for j in range(0, padded, LANES):
                        place = row * padded + j
                        store(gained, place, fma(scale, load(absent, p * padded + j), load(gained, place)))
    for w in range(words):
        hits = touched[w]
        while hits:
            lowest = hits & (~hits + one)
            hits ^= lowest
            row = w * WORD + first_bit(lowest)
            for j in range(d):
                there = met[j * words + w] & lowest
                each = gained[row * padded + j] if there else -lost[row]
                for k in range(value.shape[1]):
                    place = ((output + k) * n_used + column_slot[first_column + j]) * stride + at + row
                    sums[place] += value[leaf, k] * each

