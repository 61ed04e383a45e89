"""Which conditions rows meet, as bits: 16 or 64 rows at a time.

Rows come as a block of columns: float64[used features, rows padded to a multiple of 16 or 64], already rounded to
float32 where the ensemble asks for it (see `rows`). The rules of a split are those of `ensemble.goes_left`, which is
also what the rare modes call.

An item (see `tables`) has bits, each a conjunction of literals: goes left, or right, at a node. A node's answers for
a block of rows are one bit a row; they are kept in `bits` by depth while items below the node are worked on, so each
node is asked once per block however many items use it, and the scratch does not grow with the tree. `code_rows` turns
an item's bits into one code per row, which is the index of a table. Nothing here is compiled by itself: who calls it is. See
`counting` for the background's histograms. Does not know what is in a table.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT, goes_left
from millrace.analyses.explain.kernels.lanes import LANES, at_most, mark, not_above

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
