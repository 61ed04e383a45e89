"""Interaction values as part of an answer: kept by pair, shown as squares and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import pyarrow


@dataclass(frozen=True)  # no slots: the table is kept
class Interactions:
    """Pairs of features, and how much of their values is of the two together.

    pairs: (pairs, 2) feature numbers, the smaller first; all others are 0. values: (rows, pairs, outputs), the entry
    [i, j] and [j, i] of each row's square. feature_values: (rows, features, outputs), what the rows of a square add up
    to; the diagonal is what a feature does by itself.
    """

    pairs: numpy.ndarray[Any, Any]
    values: numpy.ndarray[Any, Any]
    feature_values: numpy.ndarray[Any, Any]
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def row(self, row: int) -> numpy.ndarray[Any, Any]:
        """(features, features), symmetric, of one row; (features, features, outputs) when there are several."""
        return self._squares(slice(row, row + 1))[0]  # type: ignore[no-any-return]

    def dense(self) -> numpy.ndarray[Any, Any]:
        """All squares: (rows, features, features[, outputs]). Large: rows x features^2 numbers."""
        return self._squares(slice(None))

    def _squares(self, rows: slice) -> Any:
        import numpy

        own, values = self.feature_values[rows], self.values[rows]
        count, features, outputs = own.shape
        whole = numpy.zeros((count, features, features, outputs), own.dtype)
        i, j = self.pairs[:, 0], self.pairs[:, 1]
        whole[:, i, j] = values
        whole[:, j, i] = values
        at = numpy.arange(features)
        whole[:, at, at] = own - whole.sum(axis=2)
        return whole[..., 0] if outputs == 1 else whole

    @cached_property
    def table(self) -> pyarrow.Table:
        """One row a pair and output, strongest first: mean |value| of both entries together, and mean value."""
        import numpy
        import pyarrow

        parts = []
        for k, output in enumerate(self.output_names):
            own = self.values[:, :, k]
            mean_abs = 2 * numpy.abs(own).mean(axis=0, dtype=numpy.float64)
            order = numpy.argsort(-mean_abs, kind="stable")
            first, second = self.pairs[order, 0].tolist(), self.pairs[order, 1].tolist()
            parts.append(
                pyarrow.table({
                    "feature": pyarrow.array([self.feature_names[i] for i in first], pyarrow.string()),
                    "other": pyarrow.array([self.feature_names[j] for j in second], pyarrow.string()),
                    "mean_abs": mean_abs[order],
                    "mean": 2 * own.mean(axis=0, dtype=numpy.float64)[order],
                    "output": pyarrow.array([output] * len(order), pyarrow.string()),
                })
            )  # fmt: skip
        return pyarrow.concat_tables(parts)
