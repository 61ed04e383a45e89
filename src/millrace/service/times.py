"""Histograms of seconds or milliseconds, as Prometheus counts them."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

ROWS_MS = (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
JOBS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
"""Past an hour: heavy jobs take hours."""


@dataclass(slots=True)
class Histogram:
    """`counts[i]`: of values up to `bounds[i]` and above the bound before; the last one is of all above."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


class Times:
    """How long rows took to explain, in ms. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = Histogram(ROWS_MS)

    def row(self, ms: float) -> None:
        with self._lock:
            self._rows.add(ms)

    def rows(self) -> Histogram:
        """As it is now."""
        with self._lock:
            return Histogram(ROWS_MS, list(self._rows.counts), self._rows.total)
