"""Which way rows go at the nodes of a tree, for 16 or 64 rows at a time, as bits.

Rows come as a block of columns: float64[used features, rows padded to a multiple of 16 or 64], already rounded to
float32 where the ensemble asks for it (see `rows`). The rules of a split are those of `ensemble.goes_left`, which is
also what the rare modes call. Does not know tables, quadrature or pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from millrace.analyses.explain.kernels.ensemble import NAN_LEFT, NAN_RIGHT, goes_left
from millrace.analyses.explain.kernels.lanes import LANES, at_most, not_above

WORD = 64
"""Rows in a word of condition bits."""


@njit(cache=True)
def sent_left(node, mode, threshold, category_start, category_count, category_member, columns, at):  # type: ignore[no-untyped-def]
    """Mask of the 16 values columns[at : at + 16] that the node sends to the left."""
    rule = mode[node]
    if rule == NAN_RIGHT:
        return at_most(columns, at, threshold[node])
    if rule == NAN_LEFT:
        return not_above(columns, at, threshold[node])
    mask = np.int64(0)
    start, count = category_start[node], category_count[node]
    for k in range(LANES):
        if goes_left(columns[at + k], rule, threshold[node], start, count, category_member):
            mask |= np.int64(1) << k
    return mask


@njit(cache=True)
def conditions(  # type: ignore[no-untyped-def]
    node, mode, threshold, category_start, category_count, category_member, columns, at, words, bits
):
    """bits[w], bit r: row 64 w + r of columns[at : at + 64 words] goes left at the node."""
    for w in range(words):
        word = np.uint64(0)
        for part in range(0, WORD, LANES):
            mask = sent_left(
                node, mode, threshold, category_start, category_count, category_member, columns,
                at + w * WORD + part,
            )  # fmt: skip
            word |= np.uint64(mask) << np.uint64(part)
        bits[w] = word


Conditions = Any
