"""Which conditions rows meet, as bits: 16 or 64 rows at a time.

Rows come as a block of columns: float64[used features, rows padded to a multiple of 16 or 64], already rounded to
float32 where the ensemble asks for it (see `rows`). The rules of a split are those of `ensemble.goes_left`, which is
also what the rare modes call.

An item (see `tables`) has bits, each a conjunction of literals: goes left, or right, at a node. A node's answers for
a block of rows are one bit a row; they are kept in `bits` by depth while items below the node are worked on, so each
node is asked once per block however many items use it, and the scratch does not grow with the tree. `code_rows` turns
an item's bits into one code per row, which is the index of a table; `count_patterns` makes the background's histogram
of codes. Does not know what is in a table.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT, goes_left
from millrace.analyses.explain.kernels.lanes import LANES, at_most, mark, not_above, read_only, writable

WORD = 64
"""Rows in a word of condition bits."""


@njit(cache=True)
def sent_left(mode, threshold, start, count, member, columns, at):  # type: ignore[no-untyped-def]
    """Mask of the 16 values columns[at : at + 16] that a node of any mode sends to the left.

    For the rare modes: kernels ask `at_most` and `not_above` themselves for the two common ones. As one function for
    all modes the question cost more than the rest of a node, called or inlined (dozens of words on the stack, or
    atomic reference counts).
    """
    mask = np.int64(0)
    for k in range(LANES):
        if goes_left(columns[at + k], mode, threshold, start, count, member):
            mask |= np.int64(1) << k
    return mask


@njit(cache=True)
def conditions(rule, bound, start, count, category_member, columns, at, words, bits, first):  # type: ignore[no-untyped-def]
    """bits[first + w], bit r: row 64 w + r of columns[at : at + 64 words] goes left at a node of the given mode,
    threshold and category set."""
    for w in range(words):
        word = np.uint64(0)
        for part in range(0, WORD, LANES):
            place = at + w * WORD + part
            if rule == NAN_RIGHT:
                mask = at_most(columns, place, bound)
            elif rule == NAN_LEFT:
                mask = not_above(columns, place, bound)
            else:
                mask = sent_left(rule, bound, start, count, category_member, columns, place)
            word |= np.uint64(mask) << np.uint64(part)
        bits[first + w] = word


@njit(cache=True)
def hold_literals(  # type: ignore[no-untyped-def]
    first, last, literal_node, literal_row, slot, threshold, mode, category_start, category_count, category_member,
    columns, stride, at, words, bits, held,
):  # fmt: skip
    """Put the answers of the nodes of literals first .. last into their rows of bits[rows * words], unless they are
    there. held[row]: the node whose answers a row of bits holds."""
    for place in range(first, last):
        node, row = literal_node[place], literal_row[place]
        if held[row] != node:
            held[row] = node
            conditions(
                mode[node], threshold[node], category_start[node], category_count[node], category_member,
                columns, slot[node] * stride + at, words, bits, np.int64(row) * words,
            )  # fmt: skip


@njit(cache=True)
def met_words(first, last, literal_row, literal_right, bits, words, met, at):  # type: ignore[no-untyped-def]
    """met[at : at + words]: the rows that meet all literals first .. last."""
    for place in range(first, last):
        row = np.int64(literal_row[place]) * words
        flip = ~np.uint64(0) if literal_right[place] else np.uint64(0)
        if place == first:
            for w in range(words):
                met[at + w] = bits[row + w] ^ flip
        else:
            for w in range(words):
                met[at + w] &= bits[row + w] ^ flip


@njit(cache=True)
def code_rows(first, last, literal_bit, literal_row, literal_right, bits, words, met, codes):  # type: ignore[no-untyped-def]
    """codes[64 words]: per row the number whose bit b is set where the row meets all literals of bit b."""
    codes[: words * WORD] = 0
    while first < last:
        bit, end = literal_bit[first], first + 1
        while end < last and literal_bit[end] == bit:
            end += 1
        met_words(first, end, literal_row, literal_right, bits, words, met, 0)
        number = np.uint16(1 << bit)
        for w in range(words):
            mark(codes, w * WORD, number, met[w])
        first = end


_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))


@njit(
    types.void(
        *(_BYTES, _LONGS, _INTS, _INTS, _INTS, _BYTES, _LONGS, types.int64, types.uint8),
        *(_INTS, _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES),
        *(_FLOATS, types.int64, _FLOATS, writable(types.float64)),
    ),
    cache=True,
)
def count_patterns(  # type: ignore[no-untyped-def]
    item_kind, literal_start, literal_bit, literal_node, literal_row, literal_right, histogram_start, bit_rows,
    left_out, slot, threshold, mode, category_start, category_count, category_member,
    columns, stride, weights, histogram,
):  # fmt: skip
    """Add a block of background rows to the histograms of all items but those of the kinds from `left_out` on.

    stride is at least the rows rounded up to a multiple of 64, len(weights) the number of rows; rows are added in their order.
    """
    words = stride // WORD
    bits, held = np.empty(bit_rows * words, np.uint64), np.full(bit_rows, -1, np.int64)
    met, codes = np.empty(words, np.uint64), np.empty(stride, np.uint16)
    for item in range(len(item_kind)):
        if item_kind[item] >= left_out:
            continue
        first, last = literal_start[item], literal_start[item + 1]
        hold_literals(
            first, last, literal_node, literal_row, slot, threshold, mode, category_start, category_count,
            category_member, columns, stride, 0, words, bits, held,
        )  # fmt: skip
        code_rows(first, last, literal_bit, literal_row, literal_right, bits, words, met, codes)
        start = histogram_start[item]
        for row in range(len(weights)):
            histogram[start + codes[row]] += weights[row]


@njit(
    types.void(
        *(_INTS, _INTS, _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES),
        *(_FLOATS, types.int64, types.int64, types.int64, writable(types.uint64)),
    ),
    cache=True,
)
def answer_nodes(  # type: ignore[no-untyped-def]
    nodes, slot, threshold, mode, category_start, category_count, category_member,
    columns, stride, first_word, all_words, bits,
):  # fmt: skip
    """bits[i * all_words + first_word : ... + stride / 64]: which rows of a block go left at nodes[i]."""
    for i in range(len(nodes)):
        node = nodes[i]
        conditions(
            mode[node], threshold[node], category_start[node], category_count[node], category_member,
            columns, slot[node] * stride, stride // WORD, bits, i * all_words + first_word,
        )  # fmt: skip
