"""Resampled Gram matrices on a device, by torch: what `grams` makes, in float64.

The products of all pairs of columns are made for a block of rows and multiplied by the counts of the whole batch, one
matrix product a block; blocks are cut by the number of columns and added in the order of rows. Counts are drawn where
`resample` draws them, on the processor, and travel as bytes. Does not solve, and does not choose the device. See also:
`grams` (the same on the processor), `weighted` (who uses either).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from millrace.analyses.refute.kernels.conjugate import Weights
from millrace.analyses.refute.kernels.resample import CHUNK

Array = numpy.ndarray[Any, Any]

BLOCK_BYTES = 256 << 20
"""Products of one block of rows on the device."""
HELD_BYTES = 16 << 20
"""The block's rows as float64, before they travel."""


@dataclass(frozen=True, slots=True)
class DeviceGrams:
    """`device` as torch writes it: "cuda:0", or "cpu"."""

    device: str

    def together(self, basis: Array, weights: Weights, column: Array) -> Array:
        """float64 (B, k+1, k+1): [X, column]'C[X, column] from float64 products; column: (n,)."""

        def rows_of(begin: int, end: int) -> Array:
            return basis[begin:end]

        return self._summed(rows_of, weights, None, column)

    def alone(self, rows_of: Callable[[int, int], Array], weights: Weights, which: Array, column: Array) -> Array:
        """float64 (len(which), k+1, k+1): the same of the simulations `which`. rows_of(begin, end): float64 rows."""
        return self._summed(rows_of, weights, which, column)

    def _summed(
        self, rows_of: Callable[[int, int], Array], weights: Weights, which: Array | None, column: Array
    ) -> Array:
        import torch

        k = rows_of(0, 1).shape[1] + 1
        width = k * (k + 1) // 2
        chosen = numpy.arange(weights.count) if which is None else which
        sums = torch.zeros(len(chosen), width, dtype=torch.float64, device=self.device)
        step = max(1, min(BLOCK_BYTES // (8 * CHUNK * width), HELD_BYTES // (8 * CHUNK * k)))
        for piece in range(0, weights.chunks, step):
            some = range(piece, min(piece + step, weights.chunks))
            counts = numpy.concatenate([weights.chunk(p)[chosen] for p in some], axis=1)
            begin, end = piece * CHUNK, piece * CHUNK + counts.shape[1]
            rows = torch.cat([self._there(rows_of(begin, end)), self._there(column[begin:end])[:, None]], dim=1)
            products = torch.empty(len(rows), width, dtype=torch.float64, device=self.device)
            place = 0
            for i in range(k):
                torch.mul(rows[:, i : i + 1], rows[:, i:], out=products[:, place : place + k - i])
                place += k - i
            sums += self._there(counts) @ products
        return _square(sums.cpu().numpy(), k)

    def _there(self, values: Array) -> Any:
        """On the device, as float64: it travels in its own type, which is smaller."""
        import torch

        kept = numpy.ascontiguousarray(values)
        own = kept if kept.flags.writeable else kept.copy()  # torch warns of memory that it could write to and must not
        return torch.from_numpy(own).to(self.device).to(torch.float64)


def _square(sums: Array, k: int) -> Array:
    """(B, k, k) from upper triangles by rows."""
    out = numpy.empty((len(sums), k, k))
    upper = numpy.triu_indices(k)
    out[:, upper[0], upper[1]] = sums
    out[:, upper[1], upper[0]] = sums
    return out
