"""How many replicas a tier should have: a pure function of its settings, its signals and the time, which says why.

    target = clamp(max(running + queued, floor), min, max)        in slots, turned into replicas
    above what lives: start the difference; below: let as many leave as have been idle for idle_s, at most the difference

What boots and what drains lives, too. A busy worker is never asked to leave. Reads nothing, starts nothing (see `loop`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from millrace.autoscale.signals import Signals, unknown
from millrace.tiers import Tier, replicas_of, zone_of

BLIND_S = 600.0
"""After so long without a signal, work that was queued when it was last known gets all that the tier may have."""

LEAST_S = 5.0
"""The shortest time in which queued work is planned to start."""

FAILED_BOOTS = 2.0
"""A replica that boots for longer than this many times the 95th percentile has failed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a tier now. `target`: replicas it should have (None: hold, the count is not known or not judged).

    `start`, `drain`: how many to add, and how many that are idle to let go; `give_up`: boots that count as failed, to be
    ended. `live`: those there are, booting and draining included, failed boots not; `serving`: without the draining.
    `alert`: somebody should look.
    """

    tier: str
    target: int | None
    start: int
    drain: int
    give_up: int
    live: int | None
    reason: str
    alert: bool = False
    running: int | None = None
    queued: int | None = None
    serving: int | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.start or self.drain or self.give_up)

    def line(self) -> str:
        """One line for people: `heavy: replicas=0 running=0 queued=0 -> 0 (idle)`."""
        live, running, queued = ("?" if v is None else str(v) for v in (self.live, self.running, self.queued))
        to = live if self.target is None else str(self.target)
        return f"{self.tier}: replicas={live} running={running} queued={queued} -> {to} ({self.reason})"


def decide(tier: Tier, signals: Signals, now: float) -> Decision:
    """The decision about `tier` at `now` (Unix seconds)."""
    missing = unknown(signals, tier.count == "work")
    if missing:
        return _blind(tier, signals, now, missing)
    demand, supply = signals.demand, signals.supply
    assert demand.queued is not None and demand.running is not None and supply.boot_s is not None
    assert supply.ready is not None and supply.booting_s is not None and supply.draining is not None
    assert supply.idle_s is not None and supply.capacity is not None
    failed = sum(boots_s > FAILED_BOOTS * supply.boot_s for boots_s in supply.booting_s)
    serving = supply.ready + len(supply.booting_s) - failed
    live = serving + supply.draining
    needed = demand.running + queued_slots(tier, signals)
    floor, by = _floor(tier, signals, now)
    wanted = replicas_of(needed, tier)
    room = affordable(tier, signals)
    top = max(tier.least, min(tier.most, room))
    target = min(max(wanted, floor, tier.least), top)
    start, drain = 0, 0
    if target > live:
        start = max(0, min(target, supply.capacity) - live)
    else:
        idle_s = supply.boot_s if tier.idle_s is None else tier.idle_s
        drain = min(max(0, serving - target), sum(spent >= idle_s for spent in supply.idle_s))
    reason = _why(tier, wanted, floor, by, target, live, start, drain, room, needed)
    short = start < target - live
    said = f"{reason}; {failed} failed to boot" if failed else reason
    return Decision(
        tier.name, target, start, drain, failed, live, said, failed > 0 or short, demand.running, demand.queued, serving
    )


def queued_slots(tier: Tier, signals: Signals) -> int:
    """Slots that the queued jobs are worth: one each, or what starts their work within the tier's objective."""
    demand, supply = signals.demand, signals.supply
    assert demand.queued is not None
    if tier.count == "jobs" or not demand.queued:
        return demand.queued
    assert demand.work_s is not None and demand.oldest_wait_s is not None and supply.boot_s is not None
    left_s = max(LEAST_S, tier.slo_s - demand.oldest_wait_s - supply.boot_s)
    return min(demand.queued, max(1, math.ceil(demand.work_s / left_s)))


def affordable(tier: Tier, signals: Signals) -> int:
    """Replicas that the money allows."""
    assert signals.room_hour is not None
    if signals.room_hour == math.inf or signals.price_hour <= 0:
        return tier.most
    return max(0, math.floor(signals.room_hour / signals.price_hour + 1e-9))


def scheduled(tier: Tier, now: float) -> int:
    """The floor that the schedule sets at `now`, in replicas."""
    if not tier.schedule:
        return 0
    there = datetime.fromtimestamp(now, zone_of(tier.zone))
    fits = (h for h in tier.schedule if there.weekday() in h.weekdays() and h.hours[0] <= there.hour < h.hours[1])
    return max((h.replicas for h in fits), default=0)


def _floor(tier: Tier, signals: Signals, now: float) -> tuple[int, str]:
    by_hour = scheduled(tier, now)
    assert signals.demand.forecast_slots is not None
    by_past = replicas_of(signals.demand.forecast_slots, tier) if tier.forecast else 0
    return (by_hour, "schedule") if by_hour >= by_past else (by_past, "forecast")


def _blind(tier: Tier, signals: Signals, now: float, missing: tuple[str, ...]) -> Decision:
    """Hold. After ten minutes, when work was queued: all that is allowed, provided that it is known what there is."""
    demand, supply = signals.demand, signals.supply
    live = serving = None
    if supply.ready is not None and supply.booting_s is not None and supply.draining is not None:
        serving = supply.ready + len(supply.booting_s)
        live = serving + supply.draining
    since_s = 0.0 if signals.past.known_at is None else now - signals.past.known_at
    told = f"unknown for {since_s:.0f} s: {', '.join(missing)}"
    target, start, reason = None, 0, f"holds; {told}"
    bounds = supply.capacity is not None and signals.room_hour is not None
    if live is not None and bounds and since_s >= BLIND_S and signals.past.queued > 0:
        assert supply.capacity is not None
        target = max(tier.least, min(tier.most, affordable(tier, signals)))
        start = max(0, min(target, supply.capacity) - live)
        reason = f"work was queued; {told}"
    return Decision(tier.name, target, start, 0, 0, live, reason, True, demand.running, demand.queued, serving)


def _why(
    tier: Tier, wanted: int, floor: int, by: str, target: int, live: int, start: int, drain: int, room: int, needed: int
) -> str:
    if start < target - live:
        return f"{target} wanted, and no room for more than {live + start}"
    if target < max(wanted, floor):
        return "cost ceiling" if room < tier.most else "at the maximum"
    if drain:
        return f"{drain} idle may leave"
    if target > max(wanted, floor):
        return "the minimum"
    if floor > wanted:
        return by
    if target < live:
        return "none has been idle long enough"
    return "work" if needed else "idle"
