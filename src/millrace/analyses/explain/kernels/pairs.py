"""Interventional SHAP values of one leaf from pairs of a row's pattern and a background row's pattern.

For leaves that a table cannot hold, or that are not worth one: any number of distinct features on the path. With A,
M and m as in `tables`, a background row bears on a row only when M is within A; then, with a = |M|, each feature of M
gains (a - 1)! m! / (a + m)! and each feature that the row misses loses a! (m - 1)! / (a + m)!, times the leaf's value
and the background row's weight.

The background's answers lie as one bit a background row, so the ones that bear on a row are an `and` of m of these
bit sets: pairs that do not meet (nearly all, for a deep leaf) cost a fraction of a nanosecond each. Where rows are
many, background rows with the same M are merged first into one pattern with their weights added. Sums go in the order
of the patterns, row by row: no value depends on the block. Does not decide which leaves come here, nor when to merge
(see `tables`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.items import MERGED_PAIRS, PAIRS
from millrace.analyses.explain.kernels.lanes import (
    LANES,
    aligned_zeros,
    first_bit,
    fma,
    full,
    ones,
    read_only,
    store,
    writable,
)
from millrace.analyses.explain.kernels.pair_sizes import pair_room
from millrace.analyses.explain.kernels.patterns import WORD, hold_literals


@njit(cache=True)
def pair_scratch(most_distinct, background_rows, words):  # type: ignore[no-untyped-def]
    """Scratch for `pair_values`, made once for all leaves of a block of rows."""
    room, counts, numbers = pair_room(most_distinct, background_rows, words)
    return np.empty(room, np.uint64), np.empty(counts, np.int32), aligned_zeros(numbers)


@njit(cache=True)
def _missed_features(d, room, met, met_stride, words, count, missed, height):  # type: ignore[no-untyped-def]
    """Turn bits by feature into bits by row, within room: bit j % 64 of room[missed + j // 64 * height + row], for the
    first `count` rows of room[met + j * met_stride : ... + words], is set where the row does not meet feature j."""
    one = np.uint64(1)
    for place in range(np.uint64(missed), np.uint64(missed + (d + WORD - 1) // WORD * height)):
        room[place] = np.uint64(0)
    for j in range(d):
        column, shift = np.uint64(missed + j // WORD * height), np.uint64(j % WORD)
        for w in range(words):
            misses, start = ~room[met + j * met_stride + w], column + np.uint64(w * WORD)
            for k in range(np.uint64(min(WORD, count - w * WORD))):
                room[start + k] |= ((misses >> k) & one) << shift


@njit(cache=True)
def _merge(d, weights, room, height, seen, size, numbers, share):  # type: ignore[no-untyped-def]
    """Put distinct patterns of missed features first in room, in order of appearance, with their weights in
    numbers[share :]; returns how many. seen[:size]: a hash table, a power of two in size, of pattern + 1."""
    last, found, one = np.uint64(size - 1), np.uint64(0), np.uint64(1)
    wide, height, share = np.uint64((d + WORD - 1) // WORD), np.uint64(height), np.uint64(share)
    seen[:size] = 0
    for row in range(np.uint64(len(weights))):
        if weights[row] == 0.0:
            continue
        key = np.uint64(0)
        for w in range(wide):
            key = (key ^ room[w * height + row]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        place = key & last
        while True:
            if seen[place] == 0:
                for w in range(wide):
                    room[w * height + found] = room[w * height + row]
                numbers[share + found] = weights[row]
                found += one
                seen[place] = found
                break
            pattern = np.uint64(seen[place]) - one
            same = True
            for w in range(wide):
                same &= room[w * height + pattern] == room[w * height + row]
            if same:
                numbers[share + pattern] += weights[row]
                break
            place = (place + one) & last
    return np.int64(found)


_BYTES = read_only(types.uint8)
_LONGS, _WORDS = read_only(types.int64), writable(types.uint64)
_INTS, _FLOATS, _TABLE = read_only(types.int32), read_only(types.float64), read_only(types.float64, 2)


@njit(cache=True)
def pair_values(  # type: ignore[no-untyped-def]
    first, last, literal_bit, literal_row, literal_right, literal_answer, column_player, first_column, merge,
    value, leaf, output, answers, weights, gain, loss,
    bits, words, stride, rows, n_played, sums, room, counts, numbers,
):  # fmt: skip
    """Add the values of one leaf for a block of rows to sums (as in `quadrature.walk_passes`).

    Literals first .. last as in `tables.list_literals`; literal_answer: their rows in answers, which hold the bits of
    the background. bits: the answers of the block's own rows, `words` words each. The last three: `pair_scratch`.
    """
    one = np.uint64(1)
    patterns = len(weights)
    pattern_words = (patterns + WORD - 1) // WORD
    height = pattern_words * WORD
    d = np.int64(literal_bit[last - 1]) + 1
    wide, padded = (d + WORD - 1) // WORD, (d + LANES - 1) // LANES * LANES
    # Scratch is named by where it begins: slices of arrays count references, atomically, and there are many leaves.
    # room: features missed by each background pattern (from 0 on), and by 64 rows of the block; by feature, the
    # background patterns that meet it, and the rows of the block that do.
    own = height * wide
    held = own + WORD * wide
    met = held + d * pattern_words
    # counts: size of each pattern that has met a row; the patterns that a row meets; the features that it misses.
    hits, absent, seen = height, 2 * height, 2 * height + d
    # numbers: a row's gains; the scales of the patterns that it meets; the weights of patterns.
    scale, share = padded, padded + height

    start = first
    for j in range(d):
        stop = start + 1
        while stop < last and literal_bit[stop] == j:
            stop += 1
        for w in range(words):
            word = ~np.uint64(0)
            for place in range(start, stop):
                answer = bits[np.int64(literal_row[place]) * words + w]
                word &= ~answer if literal_right[place] else answer
            room[met + j * words + w] = word
        for w in range(pattern_words):
            word = ~np.uint64(0)
            for place in range(start, stop):
                answer = answers[np.int64(literal_answer[place]) * pattern_words + w]
                word &= ~answer if literal_right[place] else answer
            room[held + j * pattern_words + w] = word
        start = stop
    if merge:
        size = 16
        while size < 2 * patterns:
            size *= 2
        _missed_features(d, room, held, pattern_words, pattern_words, patterns, 0, height)
        patterns = _merge(d, weights, room, height, counts[seen:], size, numbers, share)
        pattern_words = (patterns + WORD - 1) // WORD
        for j in range(d):
            column, shift = j // WORD * height, np.uint64(j % WORD)
            for w in range(pattern_words):
                word = np.uint64(0)
                for k in range(min(WORD, patterns - w * WORD)):
                    word |= (~room[column + w * WORD + k] >> shift & one) << np.uint64(k)
                room[held + j * pattern_words + w] = word
    for p in range(np.uint64(patterns)):
        counts[p] = -1
    for w in range(words):
        within = min(WORD, rows - w * WORD)
        if within <= 0:
            break
        _missed_features(d, room, met + w, words, 1, within, own, WORD)
        for k in range(within):
            m = 0
            for c in range(wide):
                word = room[own + c * WORD + k]
                while word:
                    counts[absent + m] = c * WORD + first_bit(word)
                    word &= word - one
                    m += 1
            found = 0
            for b in range(pattern_words):
                left = patterns - b * WORD
                word = (one << np.uint64(left)) - one if left < WORD else ~np.uint64(0)
                for j in range(m):
                    word &= room[held + counts[absent + j] * pattern_words + b]
                while word:
                    counts[hits + found] = b * WORD + first_bit(word)
                    word &= word - one
                    found += 1
            if not found:
                continue
            lost = 0.0
            for h in range(found):
                p = np.int64(counts[hits + h])
                a = counts[p]
                if a < 0:
                    a = 0
                    if not merge:
                        for c in range(wide):
                            room[c * height + p] = np.uint64(0)
                        for j in range(d):
                            gone = ~room[held + j * pattern_words + p // WORD] >> np.uint64(p % WORD) & one
                            room[j // WORD * height + p] |= gone << np.uint64(j % WORD)
                    for c in range(wide):
                        word = room[c * height + p]
                        while word:
                            word &= word - one
                            a += 1
                    counts[p] = a
                own_share = numbers[share + p] if merge else weights[p]
                lost += own_share * loss[a, m]
                numbers[scale + h] = own_share * gain[a, m]
            for j in range(0, padded, LANES):
                total = full(0.0)
                column, shift = j // WORD * height, np.uint64(j % WORD)
                for h in range(found):
                    missed = np.int64(room[column + counts[hits + h]] >> shift)
                    total = fma(numbers[scale + h], ones(missed), total)
                # A feature that the row misses has gained nothing, so one sum serves both kinds without a branch.
                misses = ones(np.int64(room[own + j // WORD * WORD + k] >> shift))
                store(numbers, j, fma(-lost, misses, total))
            row = w * WORD + k
            for c in range(value.shape[1]):
                v, target = value[leaf, c], (output + c) * n_played
                for j in range(d):
                    place = np.uint64((target + column_player[first_column + j]) * stride + row)
                    sums[place] += v * numbers[np.uint64(j)]


@njit(
    types.void(
        *(_INTS, _BYTES, _INTS, _LONGS, _LONGS, _INTS, _INTS, _INTS, _BYTES, _INTS, _INTS),
        *(read_only(types.uint64), _FLOATS, _TABLE, _TABLE, types.int64),
        *(_TABLE, _INTS, _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES),
        *(_FLOATS, types.int64, types.int64, types.int64, writable(types.float64)),
    ),
    cache=True,
    nogil=True,
)
def apply_pairs(  # type: ignore[no-untyped-def]
    item_node, item_kind, item_output, literal_start, column_start, literal_bit, literal_node, literal_row, literal_right,
    literal_answer, column_player, answers, weights, gain, loss, bit_rows,
    value, slot, threshold, mode, category_start, category_count, category_member,
    columns, stride, rows, n_played, sums,
):  # fmt: skip
    """Add the values of a batch's pairs to sums, as `apply.apply_items` does those of its tables."""
    words = stride // WORD
    bits, held = np.empty(bit_rows * words, np.uint64), np.full(bit_rows, -1, np.int64)
    # The batch's own bound on distinct features of a pair: the weights are made for it.
    room, counts, numbers = pair_scratch(gain.shape[0] - 1, len(weights), words)
    for item in range(len(item_node)):
        if item_kind[item] < PAIRS:
            continue
        first, last = literal_start[item], literal_start[item + 1]
        hold_literals(
            first, last, literal_node, literal_row, slot, threshold, mode, category_start, category_count,
            category_member, columns, stride, 0, words, bits, held,
        )  # fmt: skip
        pair_values(
            first, last, literal_bit, literal_row, literal_right, literal_answer, column_player,
            column_start[item], item_kind[item] == MERGED_PAIRS, value, item_node[item], np.int64(item_output[item]), answers,
            weights, gain, loss, bits, words, stride, rows, n_played, sums, room, counts, numbers,
        )  # fmt: skip
