"""Inline first, and a pool once it pays: a pool costs a start, and most questions are smaller than that.

Starts inline. Once the tasks of a stream have taken longer than a threshold (twice what a pool's start costs is the
right one: then the start can never cost more than it saves by much), or when a task has ceilings or resources, which
only processes of their own can hold, the pool is made; every later task goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from time import monotonic_ns
from typing import TYPE_CHECKING

from millrace.engines.inline import InlineEngine
from millrace.run.task import Cancel, Limits, Outcome, Span, Task

if TYPE_CHECKING:
    from millrace.run.ports import Engine, Meters, Opener, Source, Tokens

NO_LIMITS = Limits()


class AutoEngine:
    """`make_processes` makes the pool; `threshold_s`: time of inline tasks in one stream after which it is made.

    `slots`: how many the pool will have; until it is there, those beyond the first are told as `start` spans, so that
    the account of slots x wall is whole. `opener`, `tokens` and `meter` are for the inline part.
    """

    def __init__(
        self,
        make_processes: Callable[[], Engine],
        threshold_s: float,
        *,
        slots: int = 1,
        opener: Opener | None = None,
        tokens: Tokens | None = None,
        meter: Meters | None = None,
    ) -> None:
        self._make = make_processes
        self._threshold_ns = round(threshold_s * 1e9)
        self._promised = slots
        self._inline = InlineEngine(opener, tokens, meter)
        self._pool: Engine | None = None
        self._spans: list[Span] = []

    @property
    def slots(self) -> int:
        """One, then the pool's."""
        return 1 if self._pool is None else self._pool.slots

    @property
    def isolates(self) -> bool:
        """Whether the pool is there. A task that asks for ceilings gets them in any case."""
        return self._pool is not None

    def stream(self, source: Source) -> Iterator[Outcome]:
        source = iter(source)
        if self._pool is None:
            gate = _Gate(source, self._threshold_ns)
            began_ns = monotonic_ns()
            outcomes = self._inline.stream(gate)
            try:
                for outcome in outcomes:
                    gate.spent_ns += outcome.measures.ended_ns - outcome.measures.started_ns
                    yield outcome
            finally:
                outcomes.close()  # type: ignore[attr-defined]
                now = monotonic_ns()
                self._spans += [Span(slot, "start", began_ns, now) for slot in range(1, self._promised)]
            if gate.held is None:
                return
            source = chain((gate.held,), source)
            self._pool = self._make()
        yield from self._pool.stream(source)

    def wake(self) -> None:
        pool = self._pool
        self._inline.wake()
        if pool is not None:
            pool.wake()

    def spans(self) -> list[Span]:
        taken, self._spans = self._spans + self._inline.spans(), []
        return taken if self._pool is None else taken + self._pool.spans()

    def at_work(self) -> tuple[int, list[int]]:
        return (self._pool or self._inline).at_work()

    def close(self) -> None:
        self._inline.close()
        if self._pool is not None:
            self._pool.close()


class _Gate:
    """The source, as the inline engine sees it: it ends where the pool takes over; `held` is what the pool gets first."""

    def __init__(self, source: Source, threshold_ns: int) -> None:
        self._source, self._threshold_ns = source, threshold_ns
        self.spent_ns = 0
        self.held: Task | Outcome | Cancel | None = None

    def __iter__(self) -> _Gate:
        return self

    def __next__(self) -> Task | Outcome | Cancel | None:
        asked = next(self._source)
        if isinstance(asked, Task) and (self.spent_ns > self._threshold_ns or _needs_isolation(asked)):
            self.held = asked
            raise StopIteration
        return asked


def _needs_isolation(task: Task) -> bool:
    limits = task.limits or NO_LIMITS
    return bool(limits.cpu_s or limits.wall_s or limits.private_bytes or task.resources)
