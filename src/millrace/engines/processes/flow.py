"""One stream's source and outcomes, without processes: the rules of `ports.Source`, and what waits, runs and is done.

Pulls at most one task ahead of a free place; None stops it until an outcome was delivered or somebody called `wake`.
An outcome is delivered once, whatever happens to the attempts. Does not know workers: the engine asks it for entries
and brings it their ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from millrace.engines.processes.packing import Entry, Group, Packer
from millrace.run.errors import WrongQuestion
from millrace.run.task import NOT_MEASURED, Cancel, Failure, Measures, Outcome, Task

if TYPE_CHECKING:
    from millrace.run.ports import Source

UNDELIVERED = 256
"""No new task starts while so many outcomes wait for the consumer."""


class Flow:
    """`drop` tells the workers that a group is not wanted; `number` gives numbers that are never used twice."""

    def __init__(self, source: Source, packer: Packer, number: Callable[[], int], drop: Callable[[int], None]) -> None:
        self._source, self._packer, self._number, self._drop = iter(source), packer, number, drop
        self.out: deque[Outcome] = deque()
        self.ready: deque[Entry] = deque()
        self.open = 0
        """Entries that have no outcome yet, in flight or not."""
        self.exhausted = self.waiting = self.source_failed = False
        self.ask = False
        """The source is to be asked once more even when there is no free place: an outcome was delivered."""
        self.unwanted: list[Entry] = []
        """Cancelled since the engine looked; a worker may be running them."""
        self._groups: dict[Hashable, Group] = {}

    # -- from the source ---------------------------------------------------------------------------------------
    def next(self) -> Entry | None:
        """What to send next: first what was sent before and came back, then what the source has."""
        ready = self.ready
        while ready:
            entry = ready.popleft()
            if not entry.done:
                return entry
        return self.pull()

    def pull(self) -> Entry | None:
        """The source's next task; outcomes and cancels on the way are done with at once."""
        while not (self.exhausted or self.waiting or len(self.out) >= UNDELIVERED):
            try:
                asked = next(self._source)
            except StopIteration:
                self.exhausted = True
                return None
            except BaseException:
                self.source_failed = True
                raise
            if isinstance(asked, Task):
                self.open += 1
                if asked.group is None:
                    return Entry(asked, self._packer.kind(asked), None)
                group = self._groups.get(asked.group)
                if group is None:
                    group = self._groups[asked.group] = Group(self._number())
                entry = Entry(asked, self._packer.kind(asked), group)
                entry.kind.grouped = True
                group.members[entry] = None
                return entry
            if asked is None:
                self.waiting = True
            elif isinstance(asked, Outcome):
                self.out.append(asked)
            elif isinstance(asked, Cancel):
                self.cancel(asked.group)
            else:
                raise WrongQuestion(f"A source gives Task, Outcome, Cancel or None; this one gave {asked!r}.")
        return None

    def look_ahead(self, woken: bool) -> None:
        """Ask once even though there is no free place: else a Cancel could not arrive. What comes is held.

        After an outcome only when nothing is held yet; a `wake` is somebody's wish, and always asks.
        """
        asked, self.ask = self.ask, False
        if (woken or (asked and not self.ready)) and (entry := self.pull()) is not None:
            self.ready.append(entry)

    def woke(self) -> None:
        self.waiting = False

    def delivered(self) -> None:
        self.waiting, self.ask = False, True

    # -- to the consumer ---------------------------------------------------------------------------------------
    def finish(self, entry: Entry, outcome: Outcome) -> None:
        """The entry's one outcome."""
        entry.done = True
        self.open -= 1
        group = entry.group
        if group is not None:
            del group.members[entry]
            if not group.members and self._groups.get(entry.task.group) is group:
                del self._groups[entry.task.group]
        self.out.append(outcome)

    def fail(self, entry: Entry, failure: Failure, measures: Measures = NOT_MEASURED) -> None:
        self.finish(entry, Outcome(entry.task.key, None, failure, measures))

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Entries that were in flight go first again, in their order."""
        self.ready.extendleft(reversed([e for e in entries if not e.done]))

    def cancel(self, name: Hashable) -> None:
        """Every task of the group that has no outcome gets one now; a later task of that group is wanted again."""
        group = self._groups.pop(name, None)
        if group is None:
            return
        self._drop(group.number)
        for entry in list(group.members):
            self.unwanted.append(entry)
            self.fail(entry, Failure("cancelled", f"The source cancelled the group {name!r}."))
