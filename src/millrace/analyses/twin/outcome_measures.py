"""How good an outcome model is, and intervals around its predictions that hold the outcome as often as they say.

Pure arithmetic on outcomes and on predictions of rows that the model had not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

Array = numpy.ndarray[Any, Any]

BIN_ROWS, MOST_BINS = 200, 10
SURELY = 0.9
"""Of few rows: the chance with which an interval's coverage is at least the stated one."""


@dataclass(frozen=True, slots=True)
class Conformal:
    """edges (bins - 1,): of the prediction; below, above (bins,): how far an interval reaches to either side, in outcome units.
    Two values have one bin: a label is in the set when its probability is at least 1 - above[0]. coverage: as stated; measured:
    of rows of each fold by reaches from the other folds; widened: times what the same reaches would be without the allowance
    for few rows, 1 with many."""

    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    coverage: float
    measured: float
    widened: float = 1.0

    def around(self, predictions: Array) -> tuple[Array, Array]:
        """(low, high) of numbers."""
        at = numpy.searchsorted(numpy.asarray(self.edges), predictions, side="right")
        return predictions - numpy.asarray(self.below)[at], predictions + numpy.asarray(self.above)[at]

    def labels_of(self, probabilities: Array) -> Array:
        """(rows, 2) bool."""
        return numpy.stack([probabilities, 1 - probabilities], axis=1) <= self.above[0]

    def as_dict(self) -> dict[str, Any]:
        return {n: list(v) if isinstance(v := getattr(self, n), tuple) else v for n in self.__slots__}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Conformal:
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in said.items()})


def scores(target: Array, unseen: Array, kind: str) -> dict[str, float]:
    """r2, rmse, mae; or log_loss, auc, brier."""
    if kind == "number":
        missed = target - unseen
        return {
            "r2": 1 - float((missed**2).sum() / ((target - target.mean()) ** 2).sum()),
            "rmse": float(numpy.sqrt((missed**2).mean())), "mae": float(numpy.abs(missed).mean()),
        }  # fmt: skip
    p = numpy.clip(unseen, 1e-15, 1 - 1e-15)
    return {
        "log_loss": float(-(target * numpy.log(p) + (1 - target) * numpy.log(1 - p)).mean()), "auc": auc(target, unseen),
        "brier": float(((unseen - target) ** 2).mean()),
    }  # fmt: skip


def auc(target: Array, score: Array) -> float:
    """Chance that a positive has a larger score than a negative, ties half (Mann and Whitney 1947)."""
    _, at, counts = numpy.unique(score, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[at]
    positive = float(target.sum())
    negative = len(target) - positive
    return float((ranks[target == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def conformal(target: Array, unseen: Array, fold: Array, kind: str, coverage: float, wider: bool = False) -> Conformal:
    """Reaches from residuals of rows that their model had not seen. wider: with few rows, so far that the coverage is at least
    the stated one with chance SURELY over data sets, not only on average."""
    edges, below, above = _reaches(target, unseen, kind, coverage, wider)
    plain = _reaches(target, unseen, kind, coverage, False) if wider else (edges, below, above)
    held = numpy.zeros(len(target), bool)
    for f in numpy.unique(fold):
        others = fold != f
        of_others = Conformal(*_reaches(target[others], unseen[others], kind, coverage, wider), coverage, 0.0)
        mine = fold == f
        if kind == "number":
            low, high = of_others.around(unseen[mine])
            held[mine] = (target[mine] >= low) & (target[mine] <= high)
        else:
            sets = of_others.labels_of(unseen[mine])
            held[mine] = sets[numpy.arange(int(mine.sum())), target[mine].astype(int)]
    widths = sum(above) + sum(below), sum(plain[2]) + sum(plain[1])
    return Conformal(edges, below, above, coverage, float(held.mean()), widths[0] / widths[1] if widths[1] > 0 else 1.0)


def _reaches(
    target: Array, unseen: Array, kind: str, coverage: float, wider: bool
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    if kind == "binary":
        odd = numpy.where(target == 1, 1 - unseen, unseen)
        return (), (0.0,), (_quantile(odd, coverage, wider),)
    count = int(min(MOST_BINS, max(1, len(target) // BIN_ROWS)))
    edges = numpy.unique(numpy.quantile(unseen, numpy.linspace(0, 1, count + 1)[1:-1]))
    at, missed, side = numpy.searchsorted(edges, unseen, side="right"), target - unseen, 1 - (1 - coverage) / 2
    below, above = [], []
    for b in range(len(edges) + 1):
        some = missed[at == b] if (at == b).sum() >= BIN_ROWS // 2 else missed
        above.append(max(0.0, _quantile(some, side, wider)))
        below.append(max(0.0, _quantile(-some, side, wider)))
    return tuple(edges.tolist()), tuple(below), tuple(above)


def _quantile(values: Array, level: float, wider: bool) -> float:
    """The ceil((n + 1) level)-th smallest; wider: the least whose coverage is `level` or more with chance SURELY (Vovk 2012): the
    coverage of the r-th smallest of n is distributed as Beta(r, n + 1 - r)."""
    n = len(values)
    rank = math.ceil((n + 1) * level)
    if wider:
        from scipy.stats import beta

        while rank < n and beta.cdf(level, rank, n + 1 - rank) > 1 - SURELY:
            rank += 1
    return float(numpy.partition(values, min(rank, n) - 1)[min(rank, n) - 1])


def few_rows(rows: int, enough: int, found: Conformal) -> str:
    """What to say when there are few rows."""
    return (
        f"Only {rows:,} rows have the outcome, fewer than {enough:,}: its {found.coverage:.0%} intervals were widened (x "
        f"{found.widened:.2f}), so that they hold what they say with chance {SURELY:.0%}."
    )
