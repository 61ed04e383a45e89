"""Programs on their way through the cases: what each is asked next, what was found, which are the same program.

Decisions are made at fixed places: programs enter in candidate order, a program's verdict is that of the first case, in its
round's order, that is not passed, and the order of a round comes from rounds that are over. So it does not depend on which
answer came first. Pure: starts nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millrace.analyses.validate.candidates import Candidate
from millrace.analyses.validate.cases import Case

ROUND = 256
"""Candidates between two looks at which cases tell programs apart."""
AHEAD = 8
"""Cases of one program that may be under way at once."""
FEW = 32
"""With so few undecided programs, cases are asked before it is known that they are needed."""
PASS = "pass"


@dataclass(slots=True)
class Entrant:
    """One candidate and what is known of it. order: indices of its cases, as they are asked; results: by index."""

    number: int
    candidate: Candidate
    program: dict[str, Any]
    cases: tuple[Case, ...] = ()
    order: tuple[int, ...] = ()
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: int = 0
    told: int = 0
    same_as: int = -1
    verdict: str = ""
    detail: str = ""
    failed_at: int = -1
    cpu_s: float = 0.0

    @property
    def done(self) -> bool:
        return bool(self.verdict)

    @property
    def out(self) -> int:
        return self.asked - self.told

    @property
    def passes(self) -> int:
        return sum(r["verdict"] == PASS for r in self.results.values())

    @property
    def score(self) -> float:
        """Mean over all its cases, in [0, 1]; a case that was not run counts 0."""
        return sum(r["score"] for r in self.results.values()) / max(1, len(self.cases))

    def judge(self, stop_first: bool, cpu_limit_s: float) -> None:
        """Whether all that decides has been told, and what it decides. Results beyond the deciding one are let go."""
        spent_s, first = 0.0, None
        for place, index in enumerate(self.order):
            result = self.results.get(index)
            if result is None:
                return
            spent_s += result["cpu_s"]
            if spent_s > cpu_limit_s:
                self._decide("cpu_limit", "of all its cases together", index, self.order[: place + 1])
                return
            if result["verdict"] != PASS and first is None:
                first = index
                if stop_first:
                    self._decide(result["verdict"], result["detail"], index, self.order[: place + 1])
                    return
        if first is None:
            self._decide(PASS, "", -1, self.order)
        else:
            self._decide(self.results[first]["verdict"], self.results[first]["detail"], first, self.order)

    def _decide(self, verdict: str, detail: str, failed_at: int, counted: Sequence[int]) -> None:
        self.verdict, self.detail, self.failed_at = verdict, detail, failed_at
        self.results = {index: self.results[index] for index in sorted(counted)}
        self.cpu_s = sum(r["cpu_s"] for r in self.results.values())

    def like(self, number: int, found: Mapping[str, Any]) -> None:
        """The same program as `number`: the same verdict, at no cost."""
        self.same_as, self.results = number, {int(index): result for index, result in found["results"]}
        self.verdict, self.detail, self.failed_at = found["verdict"], found["detail"], found["failed_at"]


class Tally:
    """How often each case of a task was tried and failed; the order that tells most programs apart soonest.

    The order of a round comes from the counts at the end of the round before the last: that one is over for certain, whichever
    answers came first.
    """

    def __init__(self) -> None:
        self._counts: dict[str, list[tuple[int, int]]] = {}  # by task: (tried, failed) of each case
        self._closed: dict[int, dict[str, list[tuple[int, int]]]] = {}

    def add(self, entrant: Entrant) -> None:
        """Count a program whose round is over."""
        counts = self._counts.setdefault(entrant.candidate.task, [(0, 0)] * len(entrant.cases))
        for index, result in entrant.results.items():
            tried, failed = counts[index]
            counts[index] = tried + 1, failed + (result["verdict"] != PASS)

    def close(self, number: int) -> None:
        """Round `number` is over, and all before it."""
        self._closed[number] = {task: list(counts) for task, counts in self._counts.items()}
        self._closed.pop(number - 3, None)

    def order(self, number: int, task: str, count: int) -> tuple[int, ...]:
        """Case indices for round `number`, the one that fails most first; as they came where nothing is known."""
        counts = self._closed.get(number - 2, {}).get(task, [(0, 0)] * count)
        return tuple(sorted(range(count), key=lambda i: (-(counts[i][1] + 1) / (counts[i][0] + 2), i)))


class Known:
    """Programs that were seen and what came of them: those of late at hand, all others on disk, a round at a time, so that memory
    does not grow with the number of candidates."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;")
        self._db.execute("CREATE TABLE known (program TEXT PRIMARY KEY, number INTEGER, found TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")  # one transaction for all: the file is this run's own and goes with it
        self._undecided: dict[str, int] = {}
        self._decided: dict[str, tuple[int, dict[str, Any]]] = {}

    def first(self, program: str, number: int) -> tuple[int, dict[str, Any] | None]:
        """The number under which a program was seen first (`number` when that is now), and what came of it so far."""
        if program in self._decided:
            return self._decided[program]
        if program in self._undecided:
            return self._undecided[program], None
        row = self._db.execute("SELECT number, found FROM known WHERE program = ?", (program,)).fetchone()
        if row is None:
            self._undecided[program] = number
            return number, None
        return int(row[0]), json.loads(row[1])

    def keep(self, program: str, found: dict[str, Any]) -> None:
        """What came of a program that `first` had named new."""
        self._decided[program] = self._undecided.pop(program), found
        if len(self._decided) >= ROUND:
            rows = [(name, number, json.dumps(told)) for name, (number, told) in self._decided.items()]
            self._db.executemany("INSERT INTO known VALUES (?, ?, ?)", rows)
            self._decided.clear()

    def close(self) -> None:
        self._db.close()


class Turns:
    """Whose next case is asked. A program waits for its answer before its next case is asked, since most fail early; only when
    few are left may several cases of one be under way, to keep slots busy."""

    def __init__(self, stop_first: bool) -> None:
        self._stop_first = stop_first
        self._ready: deque[Entrant] = deque()
        self._undecided: dict[int, Entrant] = {}

    def enter(self, entrant: Entrant) -> None:
        self._undecided[entrant.number] = entrant
        self._ready.append(entrant)

    def back(self, entrant: Entrant) -> None:
        """An answer has come: it is the first in the line again, or out of it when it is decided."""
        if entrant.done:
            self._undecided.pop(entrant.number, None)
        elif entrant.out == 0:
            self._ready.appendleft(entrant)

    def next(self) -> Entrant | None:
        """Who is asked now; None when all wait."""
        while self._ready:
            entrant = self._ready[0]
            if not entrant.done and entrant.asked < len(entrant.order):
                if self._stop_first or entrant.asked + 1 == len(entrant.order) or entrant.out + 1 >= AHEAD:
                    self._ready.popleft()
                return entrant
            self._ready.popleft()
        return None

    def ahead(self) -> Entrant | None:
        """Who may be asked before its last answer has come; None while there are enough others."""
        if len(self._undecided) > FEW:
            return None
        open_ones = (e for e in self._undecided.values() if e.asked < len(e.order) and e.out < AHEAD)
        return min(open_ones, key=lambda e: e.out, default=None)
