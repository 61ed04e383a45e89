"""Raw output of a block of rows, tree by tree in model order: what values must add up to.

The bits are those of `ensemble.predict`, the plain walk, which took longer than the values themselves: each step of it
waits for the one before. Trees of up to 64 leaves are read without walking (QuickScorer, Lucchese et al. 2015): a row
has a word with a bit for each leaf from left to right; at each split that sends it to the right, the leaves to the left
go; the lowest bit that is left is the row's leaf. Larger trees are walked, on columns that fit the cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT, goes_left
from millrace.analyses.explain.kernels.lanes import (
    LANES,
    at_most,
    first_bit,
    not_above,
    read_only,
    strike,
    writable,
)
from millrace.analyses.explain.kernels.patterns import sent_left

MOST_LEAVES = 64

_INTS, _LONGS, _FLOATS, _BYTES = (read_only(dtype) for dtype in (types.int32, types.int64, types.float64, types.uint8))


@njit(
    types.void(
        *(_INTS, _INTS, read_only(types.float64, 2), _FLOATS, _BYTES, _LONGS, _LONGS, _BYTES, _LONGS, _INTS),
        *(_INTS, _INTS, _FLOATS, types.int64, types.int64, writable(types.float64, 2)),
    ),
    cache=True,
    nogil=True,
)
def add_outputs(  # type: ignore[no-untyped-def]
    left, right, value, threshold, mode, category_start, category_count, category_member, tree_start, tree_output,
    size, slot, columns, stride, rows, out,
):  # fmt: skip
    """Add the leaves of all trees to out[rows, n_outputs]; columns as in `quadrature.walk_passes`."""
    alive, leaf_node = np.empty(stride, np.uint64), np.empty(MOST_LEAVES, np.int64)
    width = value.shape[1]
    for tree in range(len(tree_output)):
        first, last, output = tree_start[tree], tree_start[tree + 1], np.int64(tree_output[tree])
        if last - first >= 2 * MOST_LEAVES:
            for row in range(rows):
                node = first
                while left[node] >= 0:
                    z, rule = columns[slot[node] * stride + row], mode[node]
                    if rule == NAN_RIGHT:
                        met = z <= threshold[node]
                    else:
                        met = goes_left(
                            z, rule, threshold[node], category_start[node], category_count[node], category_member
                        )
                    node = np.int64(left[node] if met else right[node])
                for k in range(width):
                    out[row, output + k] += value[node, k]
            continue
        alive[:] = ~np.uint64(0)
        leaf = 0
        for node in range(first, last):
            if left[node] < 0:
                leaf_node[leaf] = node
                leaf += 1
                continue
            # The left half's leaves come next; the right half has one at least, so they are fewer than 64.
            passed = (np.uint64(1) << np.uint64((size[left[node]] + 1) >> 1)) - np.uint64(1)
            kept = ~(passed << np.uint64(leaf))
            rule, bound, source = mode[node], threshold[node], np.int64(slot[node]) * stride
            if rule == NAN_RIGHT:
                for place in range(0, rows, LANES):
                    strike(alive, place, at_most(columns, source + place, bound), kept)
            elif rule == NAN_LEFT:
                for place in range(0, rows, LANES):
                    strike(alive, place, not_above(columns, source + place, bound), kept)
            else:
                start, count = category_start[node], category_count[node]
                for place in range(0, rows, LANES):
                    met = sent_left(rule, bound, start, count, category_member, columns, source + place)
                    strike(alive, place, met, kept)
        for row in range(rows):
            node = leaf_node[first_bit(alive[row])]
            for k in range(width):
                out[row, output + k] += value[node, k]
