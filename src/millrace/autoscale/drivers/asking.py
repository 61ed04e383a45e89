"""What drivers over a job table's crew share: who was asked to leave, how long replicas took to come up, what to count.

Starts and ends nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.autoscale.policy import Decision
from millrace.autoscale.signals import Foreman, Supply, Worker
from millrace.tiers import Tier

ASKED_S = 30.0
"""An idle worker that was asked to leave and tells nothing of it for this time is asked again."""

BOOTS = 50


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a place: its name there, its worker in the crew (None: not seen now), for how long it is there.

    `up`: its worker was seen at some time; `going`: it was told to end by the place, and will."""

    name: str
    worker: Worker | None
    age_s: float
    up: bool
    going: bool = False

    @property
    def busy(self) -> bool:
        """One that was up and is not seen now is taken to be busy."""
        return self.up and (self.worker is None or self.worker.state == "busy")


@dataclass(slots=True)
class Ledger:
    """What is known of the replicas of one tier between ticks."""

    up: set[str] = field(default_factory=set)
    booting: set[str] = field(default_factory=set)
    boots_s: deque[float] = field(default_factory=lambda: deque(maxlen=BOOTS))
    asked: dict[str, float] = field(default_factory=dict)

    def see(self, name: str, worker: Worker | None, age_s: float, going: bool = False) -> Replica:
        """A replica as it is now; a boot that has just ended is remembered."""
        if worker is not None and worker.state != "booting":
            if name in self.booting:
                self.boots_s.append(age_s)
            self.booting.discard(name)
            self.up.add(name)
        elif name not in self.up:
            self.booting.add(name)
        return Replica(name, worker, age_s, name in self.up, going)

    def keep(self, names: Sequence[str]) -> None:
        """Forget replicas that are gone."""
        self.up &= set(names)
        self.booting &= set(names)

    def boot_s(self, tier: Tier) -> float:
        """The 95th percentile of those seen; the setting while none was."""
        seen = sorted(self.boots_s)
        return seen[min(len(seen) - 1, int(0.95 * len(seen)))] if seen else tier.boot_s

    def leaving(self, replica: Replica, now: float) -> bool:
        """It drains, or was asked to and has told nothing since. Who took a job after all is not leaving."""
        worker = replica.worker
        if worker is None:
            return replica.going
        at = self.asked.get(worker.id)
        if at is not None and (worker.state == "busy" or now - at > ASKED_S):
            del self.asked[worker.id]
            at = None
        return replica.going or worker.state == "draining" or at is not None


def supply(tier: Tier, ledger: Ledger, replicas: Sequence[Replica], now: float, coming: int, capacity: int) -> Supply:
    """What there is. `coming`: replicas that were asked for and are not there yet."""
    leaving = [r for r in replicas if ledger.leaving(r, now)]
    ready = [r for r in replicas if r.up and r not in leaving]
    idle = tuple(max(0.0, now - r.worker.since) for r in ready if r.worker is not None and r.worker.state == "idle")
    booting = [r.age_s for r in replicas if not r.up and r not in leaving] + [0.0] * coming
    return Supply(len(ready), tuple(booting), len(leaving), idle, ledger.boot_s(tier), capacity)


def ask_idle(
    ledger: Ledger, replicas: Sequence[Replica], decision: Decision, crew: Foreman, now: float, coming: int
) -> None:
    """Ask as many idle workers to leave as were decided, the longest idle first; twice is as once."""
    assert decision.serving is not None
    serving = [r for r in replicas if not ledger.leaving(r, now)]
    too_many = len(serving) + coming - (decision.serving - decision.drain)
    idle = [r.worker for r in serving if r.up and r.worker is not None and r.worker.state == "idle"]
    for worker in sorted(idle, key=lambda one: one.since)[: max(0, min(decision.drain, too_many))]:
        crew.ask(worker)
        ledger.asked[worker.id] = now
