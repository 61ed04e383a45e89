"""The background in patterns: histograms of codes for tables, and a bit a row for pairs. See `patterns`."""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.lanes import read_only, writable
from millrace.analyses.explain.kernels.patterns import WORD, code_rows, conditions, hold_literals

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
