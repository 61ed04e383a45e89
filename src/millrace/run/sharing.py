"""What a run shares with others on its host: memory before it starts, and the work on keys that others compute too.

`Sharing` is what `compose` hands to a run. `Elsewhere` holds the tasks of one stream that another run computes just
now: they are looked for until their values lie in the store, or until the other has let go without one. Cores are
shared below, by the engine (see `ports.Tokens`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from millrace.run.task import Key, Span

if TYPE_CHECKING:
    from millrace.run.budget import Plan
    from millrace.run.placement import Place
    from millrace.run.run import Run

MOST_CLAIMS = 4096
MOST_ELSEWHERE = 4096
LOOKED_AT = 64
LOOK_S = 0.02
SETTLE_S = 0.03
PATIENCE_S = 10.0
"""Who has nothing else to do computes what another claims when that takes longer than this, and four times longer than
the longest task so far: the other may be stopped."""


class Claims(Protocol):
    """Who computes a key. The claims of a process that died are free."""

    def claim(self, key: Key) -> bool: ...

    def release(self, key: Key) -> None: ...


Admit = Callable[[Callable[[int], int], int, Callable[[], bool], Callable[[str], None]], int]
"""(peak bytes of so many slots, slots wanted, whether the run is ending, told for whom it waits) -> slots."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """`claims`: of the run's store; `admit`: waits for the memory of a plan. `place`: where kernels
    with two bodies run. None: there is nothing to share."""

    claims: Claims | None = None
    admit: Admit | None = None
    place: Place | None = None

    def enter(self, run: Run, plan: Plan, slots: int) -> int:
        """Declare the plan's memory; the slots that it may use."""
        if self.admit is None:
            return slots

        def peak_bytes(count: int) -> int:
            return plan.driver_bytes + count * plan.worker_bytes

        def waits(whom: str) -> None:
            run.note(f"Waits for memory of this host that other runs have declared: {whom}.")

        began_ns = monotonic_ns()
        given = self.admit(peak_bytes, slots, lambda: run.ending is not None, waits)
        now_ns = monotonic_ns()
        if now_ns - began_ns > 1_000_000:
            run.ledger.spans([Span(-1, "host", began_ns, now_ns)])
        if given < slots:
            run.note(f"Runs {given} of {slots} tasks at once: other runs of this host hold the rest of its memory.")
        return given


class Elsewhere:
    """Keys of one stream: `own` are claimed here, `waiting` are claimed by others (key -> since when)."""

    def __init__(self, claims: Claims, flush: Callable[[], None]) -> None:
        self._claims, self._flush = claims, flush
        self.own: dict[Key, None] = {}
        self.waiting: dict[Key, float] = {}
        self._done: list[Key] = []
        self._settled_s = self._looked_s = 0.0
        self._longest_s = 0.0

    def mine(self, key: Key) -> bool:
        """Whether to compute it here. Beyond `MOST_CLAIMS` without a claim: so many at once are small ones."""
        if len(self.own) >= MOST_CLAIMS:
            return True
        if self._claims.claim(key):
            self.own[key] = None
            return True
        self.waiting[key] = time.monotonic()
        return False

    def due(self) -> bool:
        """It is time to look for what others computed."""
        return bool(self.waiting) and time.monotonic() - self._looked_s > LOOK_S

    def full(self) -> bool:
        return len(self.waiting) >= MOST_ELSEWHERE

    def look(self, is_there: Callable[[Key], bool], idle: bool) -> Key | None:
        """A key that waits no longer: its value is there, or it is ours now. `idle`: nothing else is to be done."""
        for key in list(self.waiting)[:LOOKED_AT]:
            late = idle and time.monotonic() - self.waiting[key] > max(PATIENCE_S, 4 * self._longest_s)
            if is_there(key) or late:
                del self.waiting[key]
                return key
            if self._claims.claim(key):
                del self.waiting[key]
                self.own[key] = None
                return key
        self._looked_s = time.monotonic()
        return None

    def ended(self, key: Key, took_s: float) -> None:
        """Computed and put; others may have it once it is flushed."""
        if key in self.own:
            del self.own[key]
            self._done.append(key)
            self._longest_s = max(self._longest_s, took_s)
            if time.monotonic() - self._settled_s > SETTLE_S:
                self.settle()

    def let_go(self, key: Key) -> None:
        """It has no value from here: it failed, or it was there already."""
        if key in self.own:
            del self.own[key]
            self._claims.release(key)

    def settle(self) -> None:
        """What is computed is found by others from now on."""
        if self._done:
            self._flush()
            for key in self._done:
                self._claims.release(key)
            self._done.clear()
        self._settled_s = time.monotonic()

    def close(self) -> None:
        self.settle()
        for key in self.own:
            self._claims.release(key)
        self.own.clear()
