"""What each slot did besides attempts that were delivered, put together from what the Dask workers tell afterwards.

Which worker carries a message is the scheduler's choice, so the driver learns it with the reply. Between two pieces of a
slot, what came before its next message was sent is what the driver did then (`driver`, `starved`, `tail`); what came
after is the message's way through the scheduler and the worker's queue (`engine`).
"""

from __future__ import annotations

from bisect import bisect_right
from time import monotonic_ns
from typing import NamedTuple

from millrace.run.task import Span, SpanKind

NOTE_NS = 1_000_000
"""Shorter times in which the driver was busy elsewhere are the engine's latency."""
LATE_NS = 2_000_000_000
"""Replies of one slot may come out of order: gaps are told when they are so old."""
STATES = 4096


class Piece(NamedTuple):
    """`kind` None: delivered attempts. `sent_ns`: of the message that it belongs to."""

    from_ns: int
    to_ns: int
    sent_ns: int
    kind: SpanKind | None
    key: str


class Accounts:
    """Of all slots of an engine. Between streams nothing is told."""

    def __init__(self) -> None:
        self._told: list[Span] = []
        self._pieces: list[list[Piece]] = []
        self._covered: list[int] = []
        self._first: list[SpanKind | None] = []
        """Why the slot's next gap is there at all: its worker is new (`start`) or follows one that was lost."""
        self._at_ns: list[int] = []
        self._states: list[SpanKind] = []
        self._open_ns = 0

    # -- slots -------------------------------------------------------------------------------------------------
    def grow(self, slots: int) -> None:
        while len(self._covered) < slots:
            self._covered.append(self._open_ns)
            self._pieces.append([])
            self._first.append("start")

    def lost(self, slot: int) -> None:
        """Its Dask worker is gone, and another has taken its place."""
        self._first[slot] = "lost"

    # -- a stream ----------------------------------------------------------------------------------------------
    def open(self, now_ns: int) -> None:
        self._open_ns = now_ns
        self._covered = [now_ns] * len(self._covered)
        self._at_ns, self._states = [now_ns], ["driver"]
        for pieces in self._pieces:
            pieces.clear()

    def close(self, now_ns: int, flying: int) -> None:
        """`flying`: messages without a reply, which were stopped."""
        for slot in range(len(self._covered)):
            self._settle(slot, now_ns)
            if self._covered[slot] >= now_ns:
                continue
            if flying and self._first[slot] is None:
                self._tell(slot, "stopped", now_ns)
            else:
                self._gap(slot, now_ns, now_ns)

    def take(self) -> list[Span]:
        for slot in range(len(self._covered)):
            self._settle(slot, monotonic_ns() - LATE_NS)
        told, self._told = self._told, []
        return told

    # -- what happens ------------------------------------------------------------------------------------------
    def does(self, state: SpanKind, now_ns: int) -> None:
        """The driver, from now on: `driver` (busy), or what it waits for (`starved`, `tail`, `engine`)."""
        if self._states[-1] == state:
            return
        if (
            state != "driver"
            and self._states[-1] == "driver"
            and now_ns - self._at_ns[-1] < NOTE_NS
            and len(self._at_ns) > 1
        ):
            self._at_ns.pop()  # too short to tell
            self._states.pop()
            if self._states[-1] == state:
                return
        self._at_ns.append(now_ns)
        self._states.append(state)
        if len(self._at_ns) > 2 * STATES:
            del self._at_ns[:STATES], self._states[:STATES]

    def ran(self, slot: int, began_ns: int, ended_ns: int, sent_ns: int, wait_ns: int = 0) -> None:
        """Attempts followed each other without a gap. `wait_ns` is 0: nobody waits for a core's token on a cluster."""
        self._pieces[slot].append(Piece(began_ns, ended_ns, sent_ns, None, ""))

    def stopped(self, slot: int, from_ns: int, to_ns: int, key: str) -> None:
        """Attempts whose outcomes nobody wanted any more (they lie in what `ran` tells)."""
        self._told.append(Span(slot, "stopped", from_ns, to_ns, key))

    def was(self, slot: int, kind: SpanKind, from_ns: int, to_ns: int, sent_ns: int, key: str = "") -> None:
        """Anything else that a worker tells of."""
        if to_ns > from_ns:
            self._pieces[slot].append(Piece(from_ns, to_ns, sent_ns, kind, key))

    # -- within ------------------------------------------------------------------------------------------------
    def _settle(self, slot: int, until_ns: int) -> None:
        pieces = sorted(self._pieces[slot])
        ready = [p for p in pieces if p.to_ns <= until_ns]
        self._pieces[slot] = [p for p in pieces if p.to_ns > until_ns]
        for piece in ready:
            if piece.from_ns > self._covered[slot]:
                self._gap(slot, piece.from_ns, piece.sent_ns)
            if piece.kind is not None and piece.to_ns > self._covered[slot]:
                self._tell(slot, piece.kind, piece.to_ns, piece.key)
            self._first[slot] = None
            self._covered[slot] = max(self._covered[slot], piece.to_ns)

    def _gap(self, slot: int, to_ns: int, sent_ns: int) -> None:
        first = self._first[slot]
        if first is not None:
            self._tell(slot, first, to_ns)
            return
        before_ns = min(max(sent_ns, self._covered[slot]), to_ns)
        at = max(0, bisect_right(self._at_ns, self._covered[slot]) - 1)
        while self._covered[slot] < before_ns:
            end = self._at_ns[at + 1] if at + 1 < len(self._at_ns) else before_ns
            self._tell(slot, self._states[at], min(end, before_ns))
            at += 1
        self._tell(slot, "engine", to_ns)

    def _tell(self, slot: int, kind: SpanKind, to_ns: int, key: str = "") -> None:
        if to_ns > self._covered[slot]:
            self._told.append(Span(slot, kind, self._covered[slot], to_ns, key))
            self._covered[slot] = to_ns
