"""The engine without processes: tasks run one after the other in the caller, as plain calls.

What debugging uses, what is cheapest for little work, and the oracle of the other engines. It holds no ceilings and
survives no crash: see `processes`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from time import monotonic_ns, process_time_ns
from typing import TYPE_CHECKING, Any

from millrace.engines.attempt import Stores, Warm, failure_of
from millrace.run.errors import SourceStalled, WrongQuestion
from millrace.run.task import Cancel, Failure, Measures, Outcome, Ref, Span, Task

if TYPE_CHECKING:
    from millrace.run.ports import Opener, Source

DRIVER_NS = 1_000_000
"""A pause between two tasks that is longer than this is told as a span."""


class InlineEngine:
    """One slot, in the thread that pulls. `opener` as in `ProcessEngine`."""

    slots = 1
    isolates = False

    def __init__(self, opener: Opener | None = None) -> None:
        self._stores = Stores(opener)
        self._warm = Warm()
        self._woken = threading.Event()
        self._streaming = False
        self._spans: list[Span] = []

    def stream(self, source: Source) -> Iterator[Outcome]:
        """Outcomes in the order of the tasks. `SourceStalled` when the source waits: nothing is ever in flight.

        A KeyboardInterrupt passes through, since nobody can tell the task's own from the user's.
        """
        if self._streaming:
            raise WrongQuestion("An engine serves one stream at a time: finish or close the open one first.")
        self._streaming = True
        self._woken.clear()
        free_ns = monotonic_ns()
        source = iter(source)
        try:
            for asked in source:
                if isinstance(asked, Task):
                    self._between(free_ns)
                    outcome = self._attempt(asked)
                    free_ns = outcome.measures.ended_ns
                    yield outcome
                elif isinstance(asked, Outcome):
                    yield asked
                elif asked is None:
                    if not self._woken.is_set():
                        raise SourceStalled(
                            "The source waits for an outcome, and nothing is in flight: nobody can ever bring it one."
                        )
                    self._woken.clear()
                elif not isinstance(asked, Cancel):  # of a Cancel nothing is left to do: its tasks are over
                    raise WrongQuestion(f"A source gives Task, Outcome, Cancel or None; this one gave {asked!r}.")
            self._between(free_ns)
        finally:
            self._streaming = False

    def wake(self) -> None:
        self._woken.set()

    def spans(self) -> list[Span]:
        taken, self._spans = self._spans, []
        return taken

    def close(self) -> None:
        self._warm.leave()
        self._stores.close()

    def _between(self, free_ns: int) -> None:
        now = monotonic_ns()
        if now - free_ns > DRIVER_NS:
            self._spans.append(Span(0, "driver", free_ns, now))

    def _attempt(self, task: Task) -> Outcome:
        marks = [monotonic_ns()] * 4  # started, resources entered, arguments read, function returned
        cpu_ns = process_time_ns()
        value, failure = None, None
        try:
            value = self._call(task, marks)
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # noqa: BLE001 - recorded as a typed failure
            failure = Failure(*failure_of(e))
        ended_ns = monotonic_ns()
        started, entered, read, returned = marks
        measures = Measures(
            worker=0,
            pid=os.getpid(),
            attempt=1,
            sent_ns=started,
            started_ns=started,
            ended_ns=ended_ns,
            cpu_ns=process_time_ns() - cpu_ns,
            enter_ns=max(0, entered - started),
            read_ns=max(0, read - entered),
            write_ns=ended_ns - returned if failure is None else 0,
        )
        return Outcome(task.key, value, failure, measures)

    def _call(self, task: Task, marks: list[int]) -> Any:
        entered = [self._warm.enter(factory, factory) for factory in task.resources]
        marks[1:] = [monotonic_ns()] * 3
        args = self._stores.attach(task.args) if Ref in map(type, task.args) else task.args
        marks[2:] = [monotonic_ns()] * 2
        value = task.fn(*entered, *args)
        marks[3] = monotonic_ns()
        return value if task.keep is None else self._stores.keep(task.key, task.keep, value)
