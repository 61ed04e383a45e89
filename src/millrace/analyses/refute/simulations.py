"""Simulations of all tests side by side, in rounds of 50; a test whose verdict is certain stops at the end of a round.

Whether to go on is decided by whole rounds, never by which simulation came first, and a test's next round starts when its
last one is decided: so every run computes the same tasks. Workers do not wait, since the other tests' rounds are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy

from millrace.analyses.refute.study import BATCH
from millrace.run.errors import TaskFailed
from millrace.run.flow import describe
from millrace.run.ports import Source
from millrace.run.run import Run
from millrace.run.task import Outcome, Task

MakeTask = Callable[[str, int], Task]
Certain = Callable[[str, Any], bool]


@dataclass(slots=True)
class Line:
    """One test's simulations: effects and errors (rounds x BATCH, 2), which are there, how many rounds were given out."""

    found: Any
    there: Any
    rounds: int
    given: int = 0
    decided: int = 0
    stopped: bool = False
    time_ns: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return not self.stopped and self.given < self.rounds


def simulate(
    run: Run, tests: Iterable[str], simulations: int, make: MakeTask, each: int, certain: Certain | None, forgive: bool
) -> Mapping[str, Line]:
    """make(test, first): the task of `each` simulations from `first` on (BATCH or 1); its value is {"effects": (each, 2)} or
    (effect, error). certain(test, effects (rounds x BATCH, 2)): asked after each round; None: all are run. forgive: a
    simulation that fails is NaN, and its reason is kept; else the first failure is raised."""
    rounds = -(-simulations // BATCH)
    lines = {
        test: Line(numpy.full((rounds * BATCH, 2), numpy.nan), numpy.zeros(rounds * BATCH, bool), rounds)
        for test in tests
    }
    places: dict[str, tuple[str, int]] = {}
    told: set[str] = set()

    def source() -> Source:
        while any(line.open for line in lines.values()):
            given = False
            for test, line in lines.items():
                if not line.open or (certain is not None and line.given > line.decided):
                    continue
                first = line.given * BATCH
                line.given, given = line.given + 1, True
                for i in range(first, first + BATCH, each):
                    task = make(test, i)
                    places[task.key] = test, i
                    yield task
            if not given:
                yield None

    for outcome in run.stream(source()):
        test, first = places.pop(outcome.key)
        _take(lines[test], test, first, each, outcome, forgive)
        for note in _notes(outcome):
            if test not in told:  # one a test: the others say the same of other simulations
                run.note(note)
            told.add(test)
        if certain is not None:
            _decide(lines[test], test, certain)
    return lines


def _take(line: Line, test: str, first: int, each: int, outcome: Outcome, forgive: bool) -> None:
    if outcome.failure is not None:
        if not forgive:
            raise TaskFailed(describe(outcome.failure, test, first), outcome.failure, outcome.key)
        line.failures.append(outcome.failure.message)
    elif isinstance(outcome.value, Mapping):
        line.found[first : first + each] = outcome.value["effects"]
    else:
        line.found[first] = outcome.value
    line.there[first : first + each] = True
    line.time_ns += max(0, outcome.measures.ended_ns - outcome.measures.started_ns)


def _notes(outcome: Outcome) -> list[str]:
    return outcome.value.get("notes", []) if isinstance(outcome.value, Mapping) else []


def _decide(line: Line, test: str, certain: Certain) -> None:
    while not line.stopped and line.decided < line.rounds:
        end = (line.decided + 1) * BATCH
        if not line.there[line.decided * BATCH : end].all():
            return
        line.decided += 1
        line.stopped = certain(test, line.found[:end])


def whole(line: Line, simulations: int) -> Any:
    """What counts: all that were asked for, those up to the round at which the test stopped, or, of a run that was cut
    short, those before the first that is missing."""
    count = min(simulations, line.decided * BATCH) if line.stopped else simulations
    missing = numpy.flatnonzero(~line.there[:count])
    return line.found[: int(missing[0]) if len(missing) else count].copy()
