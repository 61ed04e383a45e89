"""What each slot did besides attempts that were delivered, as spans, so that slots x wall adds up.

Three moments are enough, and none of them is per task: a worker's results arrive, the driver is about to wait or has
waited, a message is sent. From an attempt's end on, a slot is idle; while the driver waits, that is the source's doing
(`starved`, or `tail` at its end), and while it does not, the driver's own (in the consumer, the source or itself). What
is shorter than `NOTE_NS` stays a gap: the engine's latency.

Times are of CLOCK_MONOTONIC in ns, which all processes of a host share.
"""

from __future__ import annotations

from collections import deque

from millrace.run.task import Span, SpanKind

NOTE_NS = 1_000_000
"""Shorter times in which the driver was busy elsewhere are not told."""
WAIT_NOTE_NS = 100_000
"""Shorter waits for the source are not told."""
KEPT = 1 << 16
"""Spans that wait for somebody to ask for them. Who never asks must not fill the memory."""


class Accounts:
    """Of all slots of an engine; between streams nothing is told."""

    def __init__(self, slots: int) -> None:
        self._told: deque[Span] = deque(maxlen=KEPT)
        self._covered = [0] * slots
        """Up to here each slot's time is told, as attempts or spans, but for short gaps."""
        self._starting = [True] * slots
        self._idle: dict[int, SpanKind | None] = {}
        """Slots without work -> why since `_covered`; None when nobody has looked yet."""
        self._woke_ns = 0

    def take(self) -> list[Span]:
        taken = list(self._told)
        self._told.clear()
        return taken

    # -- a stream ----------------------------------------------------------------------------------------------
    def open(self, now_ns: int) -> None:
        """A stream begins. Workers that are up have had nothing to do until now."""
        self._woke_ns = now_ns
        self._covered = [now_ns] * len(self._covered)
        self._idle = {slot: None for slot, starting in enumerate(self._starting) if not starting}

    def close(self, now_ns: int) -> None:
        """A stream ends: what was still in flight was stopped."""
        for slot, starting in enumerate(self._starting):
            if slot in self._idle:
                self._leave_idle(slot, now_ns)
            else:
                self._tell(slot, "start" if starting else "stopped", self._covered[slot], now_ns)
        self._idle.clear()

    # -- workers -----------------------------------------------------------------------------------------------
    def up(self, slot: int, at_ns: int, busy: bool) -> None:
        """A worker was made; `busy`: a message was waiting for it already, so its first attempt ends the start."""
        if not busy and self._starting[slot]:
            self._starting[slot] = False
            self._tell(slot, "start", self._covered[slot], at_ns)
            self._idle[slot] = None

    def ran(self, slot: int, began_ns: int, ended_ns: int, sent_ns: int, wait_ns: int = 0) -> None:
        """Attempts followed each other without a gap. A worker that waited before them waited for the driver, and, for
        the last `wait_ns`, for a core of the host."""
        came_ns = max(began_ns - wait_ns, min(self._covered[slot], began_ns))
        if self._starting[slot]:
            self._starting[slot] = False
            self._tell(slot, "start", self._covered[slot], came_ns)
        elif came_ns - self._covered[slot] > NOTE_NS:
            queued = sent_ns <= self._covered[slot]  # else the rest of the gap is the message's way
            self._tell(slot, "driver", self._covered[slot], came_ns if queued else sent_ns, NOTE_NS)
        if wait_ns:
            self._tell(slot, "host", came_ns, began_ns)
        self._covered[slot] = max(ended_ns, self._covered[slot])

    def stopped(self, slot: int, from_ns: int, to_ns: int, key: str) -> None:
        """Attempts whose outcomes nobody wanted any more (they lie in what `ran` tells)."""
        last = self._told[-1] if self._told else None
        if last is not None and (last.slot, last.kind, last.to_ns) == (slot, "stopped", from_ns):
            self._told[-1] = Span(slot, "stopped", last.from_ns, to_ns, last.key)
        else:
            self._told.append(Span(slot, "stopped", from_ns, to_ns, key))

    def died(self, slot: int, running_ns: int, at_ns: int, kind: SpanKind, key: str, delivered: bool) -> None:
        """A worker died, and its successor is being made. `running_ns`: since when its last attempt ran (0: none did);
        `delivered`: that attempt has an outcome and so needs no span."""
        if slot in self._idle:
            self._leave_idle(slot, at_ns)
        elif self._starting[slot]:
            self._tell(slot, "start", self._covered[slot], running_ns or at_ns)
        to_ns = running_ns if delivered and running_ns else at_ns
        if running_ns or not self._starting[slot]:
            self._tell(slot, kind, self._covered[slot], to_ns, key=key)
        self._covered[slot] = max(self._covered[slot], at_ns)
        self._starting[slot] = True

    def gone(self, slot: int) -> None:
        """Its worker was killed on purpose between streams: it starts anew."""
        self._starting[slot] = True

    # -- the driver --------------------------------------------------------------------------------------------
    def dry(self, slot: int) -> None:
        """A worker has nothing left to do, since the end of its last attempt."""
        self._idle[slot] = None

    def fed(self, slot: int, now_ns: int) -> None:
        if slot in self._idle:
            self._leave_idle(slot, now_ns)

    def waits(self, now_ns: int, why: SpanKind) -> None:
        """The driver is about to wait for events, with nothing to give to idle workers because of `why`."""
        for slot, before in self._idle.items():
            if before != why or now_ns - self._woke_ns > NOTE_NS:
                self._turn(slot, before, now_ns)
                self._idle[slot] = why

    def woke(self, now_ns: int) -> None:
        self._woke_ns = now_ns

    def _leave_idle(self, slot: int, now_ns: int) -> None:
        self._turn(slot, self._idle.pop(slot), now_ns)

    def _turn(self, slot: int, before: SpanKind | None, now_ns: int) -> None:
        """Tell an idle slot's time up to now: first why it waited, then the driver, when that was busy for long."""
        busy_from = self._covered[slot] if before is None else max(self._woke_ns, self._covered[slot])
        if now_ns - busy_from <= NOTE_NS:
            busy_from = now_ns
        if before is not None:
            self._tell(slot, before, self._covered[slot], busy_from, WAIT_NOTE_NS)
        self._tell(slot, "driver", busy_from, now_ns)

    def _tell(self, slot: int, kind: SpanKind, from_ns: int, to_ns: int, least_ns: int = 0, key: str = "") -> None:
        if to_ns - from_ns > least_ns:
            self._told.append(Span(slot, kind, from_ns, to_ns, key))
            self._covered[slot] = to_ns
