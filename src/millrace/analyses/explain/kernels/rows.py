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

from millrace.analyses.explain.kernels.lanes import LANES, aligned, frozen, read_only, writable

_TILE = 64
_INTS = read_only(types.int32)
_TABLE = writable(types.float64, 2)


def columns_of(rows: NDArray[Any], used: NDArray[np.int32], float32_inputs: bool, multiple: int) -> NDArray[np.float64]:
    """float64[len(used), stride] of rows[n, n_features] (float32 or float64), zeros beyond n.

    The stride is at least n rounded up to the multiple, itself a multiple of 16, and never a power of two when large:
    a row's values of different features would all fall into the same few sets of the cache.
    """
    stride = -(-len(rows) // multiple) * multiple
    columns = aligned(len(used), stride + (LANES if stride >= 256 else 0))
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
        types.void(_TABLE, _INTS, types.int64, types.int64, writable(types.float64, 3)),
        types.void(_TABLE, _INTS, types.int64, types.int64, writable(types.float32, 3)),
    ],
    cache=True,
)
def values_out(sums, used, first, rows, out):  # type: ignore[no-untyped-def]
    """out[first + k, used[j], o] = sums[o * len(used) + j, k] for the k < rows of one block; other features stay as
    they are."""
    for start in range(0, rows, _TILE):
        stop = min(rows, start + _TILE)
        for output in range(out.shape[2]):
            for j in range(len(used)):
                feature = used[j]
                for k in range(start, stop):
                    out[first + k, feature, output] = sums[output * len(used) + j, k]
