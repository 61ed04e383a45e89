"""Blocks of rows in and out of the kernels' order: used features first, rows side by side.

The kernels read and write float64[used features, rows] (a feature's values of neighbouring rows lie together, as
they are compared together); the caller has rows of all features. Copies go in tiles of 64 rows, so that both sides
stay in the cache. Rounds to float32 on the way in where the ensemble compares float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from millrace.analyses.explain.kernels.lanes import aligned, frozen, read_only, writable

_TILE = 64
_INTS = read_only(types.int32)
_TABLE = writable(types.float64, 2)


def columns_of(rows: NDArray[Any], used: NDArray[np.int32], float32_inputs: bool, multiple: int) -> NDArray[np.float64]:
    """float64[len(used), rows padded with zeros to the multiple] of rows[n, n_features] (float32 or float64)."""
    columns = aligned(len(used), -(-len(rows) // multiple) * multiple)
    if rows.dtype != np.float32:
        rows = rows.astype(np.float64, copy=False)
    _in(frozen(rows), used, float32_inputs, columns)
    return columns


@njit(
    [
        types.void(read_only(types.float64, 2), _INTS, types.boolean, _TABLE),
        types.void(read_only(types.float32, 2), _INTS, types.boolean, _TABLE),
    ],
    cache=True,
)
def _in(rows, used, float32_inputs, columns):  # type: ignore[no-untyped-def]
    n = rows.shape[0]
    for first in range(0, n, _TILE):
        last = min(n, first + _TILE)
        for j in range(len(used)):
            feature = used[j]
            if float32_inputs:
                for k in range(first, last):
                    columns[j, k] = np.float64(np.float32(rows[k, feature]))
            else:
                for k in range(first, last):
                    columns[j, k] = np.float64(rows[k, feature])


@njit(
    [
        types.void(_TABLE, _INTS, types.int64, writable(types.float64, 3)),
        types.void(_TABLE, _INTS, types.int64, writable(types.float32, 3)),
    ],
    cache=True,
)
def values_out(sums, used, first, out):  # type: ignore[no-untyped-def]
    """out[first + k, used[j], o] = sums[o * len(used) + j, k] for the rows of one block; other features stay as
    they are."""
    n = min(sums.shape[1], out.shape[0] - first)
    for start in range(0, n, _TILE):
        stop = min(n, start + _TILE)
        for output in range(out.shape[2]):
            for j in range(len(used)):
                feature = used[j]
                for k in range(start, stop):
                    out[first + k, feature, output] = sums[output * len(used) + j, k]
