"""The rules that a replay can run: the shipped policy, and those that it is compared with.

Each contender is a fresh rule per replay and the manner in which its workers serve. The peers are told what they need to be
at their best: right settings, no lost signals of their own making. They have no prediction and no slices, and a job that
they kill begins anew, as tasks of a broker do. Replays nothing (see `simulate`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from millrace.autoscale.conditions import Service
from millrace.autoscale.forecast import Busiest
from millrace.autoscale.policy import decide
from millrace.autoscale.signals import UNBOUNDED, Demand, Past, Signals, Supply, remember
from millrace.autoscale.simulate import MONDAY, Choice, Replay, Rule
from millrace.tiers import Prices, Tier

PLAIN = Service(ordered=False, kept_s=math.inf)
DIES_AFTER = 5
"""A broker's task that was killed so often is given up by the peers."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule under a name. `make`: a fresh rule for a tier; `plain`: it serves first come, first served, without slices."""

    name: str
    make: Callable[[Tier, Prices], Rule]
    service: Service = field(default_factory=Service)
    tick_s: float = 15.0

    @property
    def plain(self) -> bool:
        return not self.service.ordered


def shipped(tier: Tier, prices: Prices) -> Rule:
    """`policy.decide` itself, with what the loop remembers between its ticks."""
    past = Past()
    price, room = tier.price_hour(prices), tier.cost_ceiling
    busiest = Busiest()

    def rule(replay: Replay, now: float, known: bool) -> Choice:
        nonlocal past
        demand = Demand(forecast_slots=0)
        if known:
            busiest.see(now, len(replay.queue) + replay.running)
            demand = Demand(
                len(replay.queue), replay.oldest_wait_s(now), replay.running, max(0.0, replay.work_s),
                busiest.slots(now, tier.boot_s) if tier.forecast else 0,
            )  # fmt: skip
        past = remember(past, demand, known, MONDAY + now)
        signals = Signals(demand, _supply(replay, tier, now), past, math.inf if room is None else room, price)
        found = decide(tier, signals, MONDAY + now)
        return Choice(found.start, found.drain, found.give_up, 0, found.alert)

    return rule


def _supply(replay: Replay, tier: Tier, now: float) -> Supply:
    ready = leaving = 0
    booting, idle = [], []
    for replica in replay.replicas:
        if replica.leaving:
            leaving += 1
        elif replica.ready:
            ready += 1
            if not replica.jobs:
                idle.append(now - replica.idle_since)
        else:
            booting.append(now - replica.born)
    return Supply(ready, tuple(booting), leaving, tuple(idle), tier.boot_s, UNBOUNDED)


def always(least: bool) -> Callable[[Tier, Prices], Rule]:
    """Always the smallest number (at least one), or always the largest."""

    def make(tier: Tier, _: Prices) -> Rule:
        wanted = max(1, tier.least) if least else tier.most
        return lambda replay, now, known: Choice(start=wanted - len(replay.replicas))

    return make


def queue_cooldown(tier: Tier, _: Prices) -> Rule:
    """One more when something waits, one less when nothing has waited for 15 min; a step each 10 min."""
    acted, waited = -math.inf, 0.0

    def rule(replay: Replay, now: float, known: bool) -> Choice:
        nonlocal acted, waited
        if not known:
            return Choice()
        staying = _staying(replay)
        if replay.queue:
            waited = now
        if staying < max(tier.least, 0) or (replay.queue and staying < tier.most and now - acted >= 600):
            acted = now
            return Choice(start=1)
        if not replay.queue and staying > tier.least and now - waited >= 900 and now - acted >= 600:
            acted = now
            return Choice(take_away=1)
        return Choice()

    return rule


def keda(running: bool) -> Callable[[Tier, Prices], Rule]:
    """KEDA with the horizontal pod autoscaler: replicas follow the queue's length (or queued and running jobs), the largest
    wish of the last 5 min holds, 0 after 5 min without any; any pod may be the one that goes."""

    def make(tier: Tier, _: Prices) -> Rule:
        wishes: deque[tuple[float, int]] = deque()
        active = -math.inf

        def rule(replay: Replay, now: float, known: bool) -> Choice:
            nonlocal active
            if not known:
                return Choice()
            staying = _staying(replay)
            jobs = len(replay.queue) + (replay.running if running else 0)
            wish = min(tier.most, -(-jobs // tier.at_once))
            if wish:
                active = now
            wishes.append((now, wish))
            while wishes[0][0] <= now - 300:
                wishes.popleft()
            wanted = max(one for _, one in wishes) if wish < staying else wish
            if staying and wanted == 0:
                wanted = 0 if now - active >= 300 else 1
            wanted = max(tier.least, wanted)
            return Choice(start=max(0, wanted - staying), take_away=max(0, staying - wanted))

        return rule

    return make


def one_each(tier: Tier, _: Prices) -> Rule:
    """A replica for each job, which leaves with it: as many as there are jobs, up to the largest number."""

    def rule(replay: Replay, now: float, known: bool) -> Choice:
        wanted = min(tier.most, len(replay.queue) + replay.running)
        return Choice(start=max(0, wanted - len(replay.replicas))) if known else Choice()

    return rule


def _staying(replay: Replay) -> int:
    return sum(not replica.leaving for replica in replay.replicas)


def contenders(tick_s: float = 15.0) -> tuple[Contender, ...]:
    """All of them, the shipped policy first."""

    def plain(grace_s: float = 30.0, one_job: bool = False) -> Service:
        return Service(ordered=False, kept_s=math.inf, grace_s=grace_s, one_job=one_job)

    return (
        Contender("millrace", shipped, Service(), tick_s),
        Contender("millrace, first come first served", shipped, Service(ordered=False), tick_s),
        Contender("always the maximum, first come first served", always(False), plain(), tick_s),
        Contender("always the minimum", always(True), plain(), tick_s),
        Contender("queue length with cool-down", queue_cooldown, plain(), tick_s),
        Contender("KEDA, queue length", keda(False), plain(), tick_s),
        Contender("KEDA, queued + running, 30 s grace", keda(True), plain(), tick_s),
        Contender("KEDA, queued + running, 2 h grace", keda(True), plain(7200.0), tick_s),
        Contender("one replica per job", one_each, plain(one_job=True), tick_s),
    )
