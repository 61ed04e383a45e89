"""In which order trials are told: by their numbers (reproducible), or as they end (asap).

As they end depends on the clock. So what was decided from it (which trial was told after which was asked, after how many
replicates) is kept in the store, and a resumed study follows that record as far as it goes: it asks and tells the same again,
finds its simulations, and goes on from there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millrace.run.run import Run


@dataclass(slots=True)
class InOrder:
    """Trials are told by number: trial n is told when all before it are."""

    told: int = 0
    closed: list[int] = field(default_factory=list)

    def close(self, number: int) -> None:
        heapq.heappush(self.closed, number)

    def next_told(self) -> int | None:
        """The number of the trial to tell now; None: wait."""
        if self.closed and self.closed[0] == self.told:
            self.told += 1
            return heapq.heappop(self.closed)
        return None

    def replicates_of(self, number: int) -> int | None:
        """After how many replicates a record says that it ended; None: nobody says."""
        return None

    def asked(self, number: int) -> None:
        """A trial was asked for now."""

    def may_ask(self) -> bool:
        """A record does not say that a trial is to be told first."""
        return True


@dataclass(slots=True)
class AsTheyEnd:
    """Trials are told as they end; `record` is told each event, `past` is what an earlier run recorded."""

    past: list[tuple[str, int, int]]
    record: Callable[[int, tuple[str, int, int]], None]
    replicates: Callable[[int], int]
    at: int = 0
    closed: list[int] = field(default_factory=list)
    recorded: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recorded = {number: many for what, number, many in self.past if what == "tell"}

    def close(self, number: int) -> None:
        self.closed.append(number)

    def next_told(self) -> int | None:
        if self.at < len(self.past):
            what, number, _ = self.past[self.at]
            if what != "tell" or number not in self.closed:
                return None
            self.closed.remove(number)
            self.at += 1
            return number
        if not self.closed:
            return None
        number = self.closed.pop(0)
        self._write(("tell", number, self.replicates(number)))
        return number

    def replicates_of(self, number: int) -> int | None:
        return self.recorded.get(number)

    def asked(self, number: int) -> None:
        if self.at < len(self.past):
            self.at += 1
        else:
            self._write(("ask", number, 0))

    def may_ask(self) -> bool:
        return self.at >= len(self.past) or self.past[self.at][0] == "ask"

    def _write(self, event: tuple[str, int, int]) -> None:
        self.record(self.at, event)
        self.past.append(event)
        self.at += 1


def make(order: str, run: Run, identity: str, replicates: Callable[[int], int]) -> InOrder | AsTheyEnd:
    if order == "reproducible":
        return InOrder()
    if not identity:
        return AsTheyEnd([], lambda at, event: None, replicates)

    def record(at: int, event: tuple[str, int, int]) -> None:
        run.store.put(_key(identity, at), list(event))

    return AsTheyEnd(list(recorded(run, identity)), record, replicates)


def recorded(run: Run, identity: str) -> Any:
    """Events of earlier runs of the same question, as far as they were kept."""
    at = 0
    while (stored := run.store.get(_key(identity, at))) is not None:
        what, number, many = stored.value
        yield str(what), int(number), int(many)
        at += 1


def _key(identity: str, at: int) -> str:
    from millrace.run.keys import content_key

    return content_key(("order of a study", identity, at))
