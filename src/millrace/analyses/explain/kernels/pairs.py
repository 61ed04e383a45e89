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

_CHUNK = 256
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
    """Scratch of `pair_values`: leaves with at most so many distinct features, blocks of so many rows."""
    room, counts, numbers = _room(most_distinct, background_rows, -(-block // WORD))
    return 8 * (room + numbers) + 4 * counts


@njit(cache=True)
def _room(most_distinct, background_rows, words):  # type: ignore[no-untyped-def]
    """(words, int32s, floats) of scratch."""
    wide, padded = (most_distinct + WORD - 1) // WORD, (most_distinct + LANES - 1) // LANES * LANES
    rows, answer_words = words * WORD, (background_rows + WORD - 1) // WORD
    size = 16
    while size < 2 * background_rows:
        size *= 2
    room = answer_words * WORD * wide + words * (most_distinct + _CHUNK + 2)
    numbers = background_rows + _CHUNK * padded + 2 * (most_distinct + 1) + rows * (padded + 1)
    return room, size + rows + _CHUNK, numbers


@njit(cache=True)
def pair_scratch(most_distinct, background_rows, words):  # type: ignore[no-untyped-def]
    """Scratch for `pair_values`, made once for all leaves of a block of rows."""
    room, counts, numbers = _room(most_distinct, background_rows, words)
    return np.empty(room, np.uint64), np.empty(counts, np.int32), aligned_zeros(numbers)


@njit(cache=True)
def _distinct_patterns(  # type: ignore[no-untyped-def]
    d, feature_start, literal_right, literal_answer, answers, words, weights, missed, seen, share
):
    """Background patterns: missed[64 words * column + pattern] (a column for 64 features), share[pattern]; returns
    how many.

    In order of first appearance; found again by hashing (`seen` holds pattern + 1).
    """
    n, wide, room = len(weights), (d + WORD - 1) // WORD, np.uint64(words * WORD)
    missed[:] = np.uint64(0)
    one = np.uint64(1)
    for j in range(d):
        first, column, shift = feature_start[j], np.uint64(j // WORD) * room, np.uint64(j % WORD)
        for w in range(words):
            met = ~np.uint64(0)
            for place in range(first, feature_start[j + 1]):
                answer = answers[np.int64(literal_answer[place]) * words + w]
                met &= ~answer if literal_right[place] else answer
            misses, start = ~met, column + np.uint64(w * WORD)
            for k in range(np.uint64(WORD)):
                missed[start + k] |= ((misses >> k) & one) << shift
    seen[:] = 0
    last, found = np.uint64(len(seen) - 1), np.uint64(0)
    for row in range(np.uint64(n)):
        if weights[row] == 0.0:
            continue
        key = np.uint64(0)
        for w in range(np.uint64(wide)):
            key = (key ^ missed[w * room + row]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        place = key & last
        while True:
            if seen[place] == 0:
                for w in range(np.uint64(wide)):
                    missed[w * room + found] = missed[w * room + row]
                share[found] = weights[row]
                found += one
                seen[place] = found
                break
            pattern = np.uint64(seen[place]) - one
            same = True
            for w in range(np.uint64(wide)):
                same &= missed[w * room + pattern] == missed[w * room + row]
            if same:
                share[pattern] += weights[row]
                break
            place = (place + one) & last
    return np.int64(found)


_BYTES = read_only(types.uint8)
_LONGS, _WORDS = read_only(types.int64), writable(types.uint64)
_INTS, _FLOATS, _TABLE = read_only(types.int32), read_only(types.float64), read_only(types.float64, 2)


@njit(
    types.void(
        *(types.int64, types.int64, _INTS, _INTS, _BYTES, _INTS, _INTS, types.int64),
        *(_TABLE, types.int64, types.int64, read_only(types.uint64), _FLOATS, _TABLE, _TABLE),
        *(_WORDS, types.int64, types.int64, types.int64, types.int64, writable(types.float64)),
        *(_WORDS, writable(types.int32), writable(types.float64)),
    ),
    cache=True,
)
def pair_values(  # type: ignore[no-untyped-def]
    first, last, literal_bit, literal_row, literal_right, literal_answer, column_slot, first_column,
    value, leaf, output, answers, weights, gain, loss,
    bits, words, stride, rows, n_used, sums, room, counts, numbers,
):  # fmt: skip
    """Add the values of one leaf for a block of rows to sums (as in `quadrature.walk_passes`).

    Literals first .. last as in `tables.list_literals`; literal_answer: their rows in answers, which hold the bits of
    the background. bits: the answers of the block's own rows, `words` words each. The last three: `pair_scratch`.
    """
    one = np.uint64(1)
    background_rows = len(weights)
    answer_words = (background_rows + WORD - 1) // WORD
    d = np.int64(literal_bit[last - 1]) + 1
    wide, padded = (d + WORD - 1) // WORD, (d + LANES - 1) // LANES * LANES
    size = 16
    while size < 2 * background_rows:
        size *= 2
    # -- scratch: words, then counts, then numbers (rows of lanes first, so that they stay aligned) --
    at = answer_words * WORD * wide
    missed, met = room[:at], room[at : at + d * words]
    at += d * words
    meets, touched = room[at : at + _CHUNK * words], room[at + _CHUNK * words : at + (_CHUNK + 1) * words]
    seen, misses = counts[:size], counts[size : size + words * WORD]
    size_of = counts[size + words * WORD :]
    at = _CHUNK * padded
    absent, gained = numbers[:at], numbers[at : at + words * WORD * padded]
    at += words * WORD * padded
    lost, up = numbers[at : at + words * WORD], numbers[at + words * WORD : at + words * WORD + d + 1]
    at += words * WORD + d + 1
    down, share = numbers[at : at + d + 1], numbers[at + d + 1 : at + d + 1 + background_rows]

    feature_start = np.empty(d + 1, np.int64)
    feature_start[0] = first
    for place in range(first, last):
        feature_start[literal_bit[place] + 1] = place + 1
    patterns = _distinct_patterns(
        d, feature_start, literal_right, literal_answer, answers, answer_words, weights, missed, seen, share
    )
    for j in range(d):
        met_words(feature_start[j], feature_start[j + 1], literal_row, literal_right, bits, words, met, j * words)
    touched[:] = np.uint64(0)
    for chunk in range(0, patterns, _CHUNK):
        here = min(_CHUNK, patterns - chunk)
        for p in range(here):
            for w in range(words):
                within = rows - w * WORD  # rows that are no padding
                meets[p * words + w] = (one << np.uint64(within)) - one if within < WORD else ~np.uint64(0)
            count = 0
            for j in range(d):
                gone = missed[j // WORD * answer_words * WORD + chunk + p] >> np.uint64(j % WORD) & one
                absent[p * padded + j] = np.float64(gone)
                if gone:
                    count += 1
                    for w in range(words):
                        meets[p * words + w] &= met[j * words + w]
            for j in range(d, padded):
                absent[p * padded + j] = 0.0
            size_of[p] = count
        for p in range(here):
            a = size_of[p]
            for m in range(d + 1 - a):
                up[m] = share[chunk + p] * gain[a, m]
                down[m] = share[chunk + p] * loss[a, m]
            for w in range(words):
                hits = meets[p * words + w]
                while hits:
                    lowest = hits & (~hits + one)
                    row = np.uint64(w * WORD + first_bit(hits))
                    hits ^= lowest
                    if not touched[w] & lowest:
                        touched[w] |= lowest
                        missing = 0
                        for j in range(d):
                            if not met[j * words + w] & lowest:
                                missing += 1
                        misses[row] = missing
                        lost[row] = 0.0
                        for j in range(padded):
                            gained[row * np.uint64(padded) + np.uint64(j)] = 0.0
                    m = np.uint64(misses[row])
                    lost[row] += down[m]
                    for j in range(0, padded, LANES):
                        place = np.int64(row) * padded + j
                        store(gained, place, fma(up[m], load(absent, p * padded + j), load(gained, place)))
    for w in range(words):
        if not touched[w]:
            continue
        for j in range(d):
            hits, there = touched[w], met[j * words + w]
            for k in range(value.shape[1]):
                target = ((output + k) * n_used + column_slot[first_column + j]) * stride
                v = value[leaf, k]
                hits = touched[w]
                while hits:
                    lowest = hits & (~hits + one)
                    row = np.uint64(w * WORD + first_bit(hits))
                    hits ^= lowest
                    each = gained[row * np.uint64(padded) + np.uint64(j)] if there & lowest else -lost[row]
                    sums[np.uint64(target) + row] += v * each
