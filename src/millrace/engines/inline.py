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

from millrace.engines.attempt import Collector, Stores, Warm, carry_out
from millrace.run.errors import SourceStalled, WrongQuestion
from millrace.run.task import Cancel, Failure, Measures, Outcome, Span, Task

if TYPE_CHECKING:
    from millrace.run.ports import Meters, Opener, Source, Tokens

DRIVER_NS = 1_000_000
"""A pause between two tasks that is longer than this is told as a span."""
WAITED_NS = 1_000_000
"""What waited for less than this was not throttled, and a look at the meter is younger than this, else it is renewed."""


class InlineEngine:
    """One slot, in the thread that pulls. `opener`, `tokens` and `meter` as in `ProcessEngine`."""

    slots = 1
    isolates = False

    def __init__(self, opener: Opener | None = None, tokens: Tokens | None = None, meter: Meters | None = None) -> None:
        self._tokens = tokens
        self._meter = None if meter is None else meter()
        self._metered_ns = self._looked_ns = 0
        self._stores = Stores(opener)
        self._warm = Warm()
        self._collector = Collector()
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

    def at_work(self) -> tuple[int, list[int]]:
        return 1, []

    def close(self) -> None:
        self._warm.leave()
        self._stores.close()
        if self._tokens is not None:
            self._tokens.close()
        self._collector.close()

    def _between(self, free_ns: int) -> None:
        now = monotonic_ns()
        if now - free_ns > DRIVER_NS:
            self._spans.append(Span(0, "driver", free_ns, now))

    def _attempt(self, task: Task) -> Outcome:
        """On a core that it holds, as long as the task takes and no longer: who pulls may rest between two of them."""
        if self._tokens is None:
            return self._carried_out(task)
        try:
            waited_ns = self._tokens.take()
            if waited_ns:
                now = monotonic_ns()
                self._spans.append(Span(0, "host", now - waited_ns, now))
            return self._carried_out(task)
        finally:
            self._tokens.release()

    def _carried_out(self, task: Task) -> Outcome:
        if self._meter is not None and monotonic_ns() - self._looked_ns > WAITED_NS:
            self._throttled_ns()
        started_ns, cpu_ns, gc_ns = monotonic_ns(), process_time_ns(), self._collector.total_ns
        value, extra = carry_out(
            _itself,
            task.fn,
            task.resources,
            task.args,
            task.keep,
            task.key,
            self._warm,
            self._stores,
            (KeyboardInterrupt,),
        )
        ended_ns, cpu_ns = monotonic_ns(), process_time_ns() - cpu_ns
        waited_ns = ended_ns - started_ns - cpu_ns
        measures = Measures(
            worker=0,
            pid=os.getpid(),
            attempt=1,
            sent_ns=started_ns,
            started_ns=started_ns,
            ended_ns=ended_ns,
            cpu_ns=cpu_ns + extra.aside_ns,
            enter_ns=extra.enter_ns,
            read_ns=extra.read_ns,
            write_ns=extra.write_ns,
            gc_ns=self._collector.total_ns - gc_ns,
            gpu=extra.gpu,
            gpu_ns=extra.gpu_ns,
            throttled_ns=min(waited_ns, self._throttled_ns()) if waited_ns > WAITED_NS else 0,
        )
        return Outcome(task.key, value, Failure(*extra.failure) if extra.failure else None, measures)

    def _throttled_ns(self) -> int:
        """How long a quota has held this process back since the last look."""
        if self._meter is None:
            return 0
        before_ns, self._metered_ns, self._looked_ns = self._metered_ns, self._meter(), monotonic_ns()
        return max(0, self._metered_ns - before_ns)


def _itself(function: Any) -> Any:
    return function
