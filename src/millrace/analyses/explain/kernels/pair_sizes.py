"""The weights and the scratch of pairs (see `pairs`): what is known before any kernel is there."""

from __future__ import annotations

from math import comb

import numpy as np
from numba import njit
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.lanes import LANES
from millrace.analyses.explain.kernels.patterns import WORD


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
    room, counts, numbers = pair_room.py_func(most_distinct, background_rows, -(-block // WORD))
    return 8 * (room + numbers) + 4 * counts


@njit(cache=True)
def pair_room(most_distinct, background_rows, words):  # type: ignore[no-untyped-def]
    """(words, int32s, floats) of scratch."""
    wide, padded = (most_distinct + WORD - 1) // WORD, (most_distinct + LANES - 1) // LANES * LANES
    patterns = (background_rows + WORD - 1) // WORD * WORD
    size = 16
    while size < 2 * background_rows:
        size *= 2
    room = patterns * wide + most_distinct * (patterns // WORD + words) + WORD * wide
    return room, size + 2 * patterns + most_distinct, padded + 2 * patterns
