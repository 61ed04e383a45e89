"""Interventional values of a block of rows: look-ups in a batch's tables.

One pass over the batch's items in preorder, so every value is a sum in model order. Does not build tables (see `tables`),
leaves pairs to `pairs`, and does not know files or batches beyond the one that it is handed (see `trees`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.ensemble import NAN_RIGHT
from millrace.analyses.explain.kernels.items import GROUP, SINGLE
from millrace.analyses.explain.kernels.lanes import LANES, at_most, mark, read_only, writable
from millrace.analyses.explain.kernels.patterns import WORD, conditions

_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))
_MATRIX = read_only(types.float64, 2)


SIGNATURES = {
    name: types.void(
        *(_INTS, _BYTES, _INTS, _LONGS, _LONGS, _LONGS, _INTS, _INTS, _INTS, _BYTES, _INTS),
        *(read_only(kind), types.int64, _MATRIX, _INTS, _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES),
        *(_FLOATS, types.int64, types.int64, types.int64, writable(types.float64)),
    )
    for name, kind in (("float32", types.float32), ("float64", types.float64))
}


def prepare(table_dtype: str) -> None:
    """Compile for tables of this type, or take what was compiled before from the disk: a question has one type."""
    apply_items.compile(SIGNATURES[table_dtype])


@njit(cache=True, nogil=True)
def apply_items(  # type: ignore[no-untyped-def]
    item_node, item_kind, item_output, literal_start, column_start, table_start, literal_bit, literal_node,
    literal_row, literal_right, column_player, table, bit_rows, value, slot, threshold, mode,
    category_start, category_count, category_member, columns, stride, rows, n_played, sums,
):  # fmt: skip
    """Add the values of a batch's items to sums; columns and sums as in `quadrature.walk_passes`, but stride is at
    least the rows rounded up to a multiple of 64."""
    words, width = stride // WORD, value.shape[1]
    bits, held = np.empty(bit_rows * words, np.uint64), np.full(bit_rows, -1, np.int64)
    codes = np.empty(stride, np.uint16)
    n = np.uint64(rows)  # unsigned, as are the places below: numba gives negative indices a meaning, at a price
    gains, losses, each = np.empty(rows), np.empty(rows), np.empty(rows)
    for item in range(len(item_node)):
        kind = item_kind[item]
        if kind != GROUP and kind != SINGLE:
            continue
        first, last, output = literal_start[item], literal_start[item + 1], np.int64(item_output[item])
        # What `patterns.hold_literals` and `code_rows` do, written out: as calls they took most of a microsecond.
        for literal in range(first, last):
            node, row = literal_node[literal], np.int64(literal_row[literal])
            if held[row] == node:
                continue
            held[row] = node
            rule, bound, source = mode[node], threshold[node], np.int64(slot[node]) * stride
            if rule == NAN_RIGHT:
                for w in range(words):
                    place = source + w * WORD
                    bits[row * words + w] = (
                        np.uint64(at_most(columns, place, bound))
                        | np.uint64(at_most(columns, place + LANES, bound)) << np.uint64(LANES)
                        | np.uint64(at_most(columns, place + 2 * LANES, bound)) << np.uint64(2 * LANES)
                        | np.uint64(at_most(columns, place + 3 * LANES, bound)) << np.uint64(3 * LANES)
                    )
            else:
                conditions(
                    rule, bound, category_start[node], category_count[node], category_member, columns, source,
                    words, bits, row * words,
                )  # fmt: skip
        at = np.uint64(table_start[item])
        codes[:] = 0
        literal = first
        while literal < last:
            bit, end = literal_bit[literal], literal + 1
            while end < last and literal_bit[end] == bit:
                end += 1
            number = np.uint16(1 << bit)
            for w in range(words):
                word = ~np.uint64(0)
                for place in range(literal, end):
                    answer = bits[np.int64(literal_row[place]) * words + w]
                    word &= ~answer if literal_right[place] else answer
                mark(codes, w * WORD, number, word)
            literal = end
        first_column, last_column = column_start[item], column_start[item + 1]
        here = np.uint64(1) << np.uint64(literal_bit[last - 1] + 1)
        if kind == GROUP:
            for k in range(width):
                for j in range(first_column, last_column):
                    place = np.uint64(((output + k) * n_played + column_player[j]) * stride)
                    for row in range(n):
                        sums[place + row] += np.float64(table[at + codes[row]])
                    at += here
            continue
        for row in range(n):
            gains[row] = np.float64(table[at + codes[row]])
            losses[row] = np.float64(table[at + here + here + codes[row]])
        at += here
        for j in range(last_column - first_column):
            bit = np.uint16(1 << j)
            for row in range(n):
                kept = gains[row] - np.float64(table[at + (codes[row] & ~bit)])
                each[row] = kept if codes[row] & bit else -losses[row]
            for k in range(width):
                place = np.uint64(((output + k) * n_played + column_player[first_column + j]) * stride)
                v = value[item_node[item], k]
                for row in range(n):
                    sums[place + row] += v * each[row]
