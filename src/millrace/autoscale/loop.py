"""The scaler at work: at each tick it looks at every tier, decides, says one line, and has the driver do it.

One scaler at a time: who holds the office decides, others wait. What cannot be read is unknown, and holds. Decides nothing
by itself (see `policy`); knows no process and no pod (see `drivers`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from millrace.autoscale.forecast import Busiest
from millrace.autoscale.policy import Decision, decide
from millrace.autoscale.signals import Demand, DemandPort, Office, Past, Signals, Supply, remember, unknown
from millrace.run.errors import MillraceError
from millrace.tiers import Tier, Tiers

T = TypeVar("T")

OFFICE = "scaler"
LOOK_S = 0.2
LEASE_TICKS = 3
LEASE_S = 15.0
"""The office is held for so many intervals, and for so long at least: a scaler that was killed is replaced after that, and a busy
machine does not make two of one."""


class Driver(Protocol):
    """Who starts replicas and lets them go.

    `observe` fails loudly (a `MillraceError`), never says 0 for "could not read", and changes nothing. `apply` comes at each
    tick, also when nothing is to change: it is idempotent, clears away what has left by itself, and never stops a worker
    that is busy.
    """

    def observe(self, tier: Tier) -> Supply: ...

    def apply(self, tier: Tier, decision: Decision) -> None: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that people may want to hear of: a change, or an alert that began or ended."""

    decision: Decision
    kind: str
    at: float


@dataclass(slots=True)
class Scaler:
    """Scales `tiers`. `say` is given each line, `hear` each event; `dry`: decides and says, and touches nothing. `waits` tells
    cheaply whether a job waits in one of the tiers that it is given: those without a replica are not kept until the next
    tick. `last`: what was decided of each tier; `ticked_s`: when, on the steady clock."""

    tiers: Tiers
    demand: DemandPort
    driver: Driver
    office: Office
    holder: str
    interval_s: float = 5.0
    dry: bool = False
    say: Callable[[str], None] = print
    hear: Callable[[Event], None] | None = None
    waits: Callable[[Sequence[str]], bool] | None = None
    clock: Callable[[], float] = time.time
    last: dict[str, Decision] = field(default_factory=dict)
    ticked_s: float = field(default_factory=time.monotonic)
    _past: dict[str, Past] = field(default_factory=dict)
    _busiest: dict[str, Busiest] = field(default_factory=dict)
    _alerted: set[str] = field(default_factory=set)
    _outside: bool = False
    _next_s: float = 0.0
    _empty: tuple[str, ...] = ()

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set; the office is left then."""
        try:
            while not stop.is_set():
                self.turn()
                stop.wait(min(LOOK_S, self.interval_s))
        finally:
            self.leave()

    def turn(self) -> None:
        """Tick if it is time, or if somebody waits where there is nobody."""
        steady = time.monotonic()
        if steady < self._next_s and not (self._empty and self.waits is not None and self._hurried()):
            return
        self._next_s = steady + self.interval_s
        found = self.tick()
        self._empty = tuple(d.tier for d in found if d.live == 0 and not d.start and self.tiers.tier(d.tier).most)

    def _hurried(self) -> bool:
        assert self.waits is not None
        try:
            return self.waits(self._empty)
        except MillraceError:
            return False  # the next tick says what is wrong

    def tick(self) -> list[Decision]:
        """One look at all tiers; what was decided. Nothing while another scaler has the office."""
        self.ticked_s = time.monotonic()
        if not self.dry and not self._in_office():
            self.last.clear()
            return []
        return [self._scale(tier) for tier in self.tiers.tiers.values()]

    def leave(self) -> None:
        """Leave the office, so that another one need not wait until the lease ends."""
        if not self.dry:
            try:
                self.office.leave_office(OFFICE, self.holder)
            except MillraceError as away:
                self.say(f"scaler: the office could not be left, its lease will end: {away}")

    def _in_office(self) -> bool:
        """An office that cannot be reached is not ours: two scalers could think so."""
        try:
            mine = self.office.take_office(OFFICE, self.holder, max(LEASE_S, LEASE_TICKS * self.interval_s))
            why = "another one has the office"
        except MillraceError as away:
            mine, why = False, str(away)
        if not mine and not self._outside:
            self.say(f"scaler: waits; {why}")
        self._outside = not mine
        return mine

    def _scale(self, tier: Tier) -> Decision:
        now = self.clock()
        demand, trouble = self._read(lambda: self.demand.demand(tier.name), Demand(forecast_slots=None))
        supply, fault = self._read(lambda: self.driver.observe(tier), Supply(capacity=None))
        demand = self._with_forecast(tier, demand, now)
        price = 0.0 if tier.cost_ceiling is None else tier.price_hour(self.tiers.prices)
        room = math.inf if tier.cost_ceiling is None else tier.cost_ceiling
        signals = Signals(demand, supply, self._past.get(tier.name, Past()), room, price)
        known = not unknown(signals, tier.count == "work")
        past = self._past[tier.name] = remember(signals.past, demand, known, now)
        decision = decide(tier, Signals(demand, supply, past, room, price), now)
        self.say(decision.line())
        for why in filter(None, (trouble, fault)):
            self.say(f"{tier.name}: {why}")
        if not self.dry:
            try:
                self.driver.apply(tier, decision)
            except MillraceError as wrong:
                self.say(f"{tier.name}: not done: {wrong}")
        self._tell(decision, now)
        self.last[tier.name] = decision
        return decision

    def _with_forecast(self, tier: Tier, demand: Demand, now: float) -> Demand:
        if not tier.forecast or demand.queued is None or demand.running is None or demand.forecast_slots is None:
            return demand
        seen = self._busiest.setdefault(tier.name, Busiest())
        seen.see(now, demand.queued + demand.running)
        return replace(demand, forecast_slots=max(demand.forecast_slots, seen.slots(now, tier.boot_s)))

    @staticmethod
    def _read(read: Callable[[], T], nothing: T) -> tuple[T, str]:
        try:
            return read(), ""
        except MillraceError as away:
            return nothing, str(away)

    def _tell(self, decision: Decision, now: float) -> None:
        before = decision.tier in self._alerted
        (self._alerted.add if decision.alert else self._alerted.discard)(decision.tier)
        if self.hear is None or self.dry:
            return
        if decision.changes:
            self.hear(Event(decision, "scaled", now))
        elif decision.alert != before:
            self.hear(Event(decision, "alert" if decision.alert else "well again", now))
