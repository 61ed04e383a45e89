"""The best programs: by passes, then score, then size, then canonical digest. Processor time is a column and orders nothing."""

from __future__ import annotations

import heapq
from typing import Any

from millrace.analyses.validate.entrants import Entrant


class Podium:
    """The best `top` distinct programs that were offered."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._heap: list[tuple[_Worst, Entrant]] = []

    def offer(self, entrant: Entrant) -> None:
        """Take a decided program, if it is among the best so far and passes or scores anything."""
        if not entrant.passes and not entrant.score:
            return
        item = (_Worst(rank(entrant)), entrant)
        if len(self._heap) < self.top:
            heapq.heappush(self._heap, item)
        elif self._heap[0][0] < item[0]:
            heapq.heapreplace(self._heap, item)

    def best(self) -> list[Entrant]:
        """Best first."""
        return sorted((entrant for _, entrant in self._heap), key=rank)


def rank(entrant: Entrant) -> tuple[Any, ...]:
    """Smaller is better; no two distinct programs of a task are equal."""
    return -entrant.passes, -entrant.score, entrant.program["size"], entrant.program["digest"], entrant.number


class _Worst:
    """Turns the order round: the heap's first is the worst."""

    def __init__(self, rank: tuple[Any, ...]) -> None:
        self.rank = rank

    def __lt__(self, other: _Worst) -> bool:
        return self.rank > other.rank
