"""Replays a trace through one tier under one rule, event by event, with boots, kills, wrong estimates and lost signals.

The rule is handed in: the shipped policy, or one that it is compared with (see `contenders`). A tier's queues share its
workers; tiers do not share anything, so each is replayed by itself. Which of several free workers gets a job is drawn at
random, as when they race for it. Sums nothing up (see `figures`).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from millrace.autoscale.conditions import Faults, Service
from millrace.autoscale.traces import DAY_S, Arrival
from millrace.run.order import remaining_s, service_key, yields
from millrace.tiers import Tier

MONDAY = 4 * DAY_S
"""Unix time of a Monday at midnight: where traces start, so that schedules mean what they say."""

SLACK_S = 21_600.0
"""How long after the last arrival machines are still counted."""

_READY, _ENDS, _BACK, _GRACE, _STRIKE = range(5)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule wants at a tick: replicas to start, idle ones to let go, failed boots to end, and replicas to take away
    whatever they do (which the shipped policy never asks for)."""

    start: int = 0
    drain: int = 0
    give_up: int = 0
    take_away: int = 0
    alert: bool = False


class Replica:
    """One worker of the simulated tier. `at`: its place among those with a free slot, -1 when it is not there."""

    __slots__ = ("at", "born", "failed", "idle_since", "jobs", "leaving", "ready", "served")

    def __init__(self, born: float, failed: bool) -> None:
        self.born, self.failed = born, failed
        self.ready, self.leaving, self.idle_since, self.served, self.at = False, False, born, 0, -1
        self.jobs: set[int] = set()


@dataclass(slots=True)
class Books:
    """What is counted while a replay runs; times in seconds."""

    alive_s: float = 0.0
    busy_s: float = 0.0
    over_s: float = 0.0
    under_s: float = 0.0
    boots: int = 0
    kills: int = 0
    strikes: int = 0
    redone_s: float = 0.0
    slices: int = 0
    dead: int = 0
    peak: int = 0
    alerts: int = 0
    turns: list[tuple[float, int]] = field(default_factory=list)
    levels: list[tuple[float, int]] = field(default_factory=list)


Rule = Callable[["Replay", float, bool], Choice]
"""(the replay, now, whether its signals are known) -> what to do."""


class Replay:
    """The state of a tier in simulated time; rules read it."""

    def __init__(
        self, tier: Tier, trace: Sequence[Arrival], rule: Rule, service: Service, faults: Faults, seed: int,
        tick_s: float = 15.0, horizon_s: float | None = None, patience_s: float = 30 * DAY_S,
    ) -> None:  # fmt: skip
        self.tier, self.trace, self.rule, self.service, self.faults = tier, trace, rule, service, faults
        self.tick_s, self.slots = tick_s, tier.at_once
        self.end_s = (trace[-1].at_s if trace else 0.0) + SLACK_S if horizon_s is None else horizon_s
        self.give_up_s = self.end_s + patience_s
        streams = (random.Random(seed * 7919 + salt) for salt in (10_000, 20_000, 30_000))
        errors, self._fate, self._pick = streams
        self.size = [job.seconds for job in trace]
        self.predicted = [
            job.seconds * math.exp(faults.error * errors.gauss(0, 1)) * faults.bias
            if job.predicted_s is None
            else job.predicted_s
            for job in trace
        ]
        many = len(trace)
        self.done, self.first, self.ended = [0.0] * many, [-1.0] * many, [-1.0] * many
        self.since, self.since_key, self.began, self.had = [0.0] * many, [0.0] * many, [0.0] * many, [0.0] * many
        self.turn, self.hits = [0] * many, [0] * many
        self.place: list[Replica | None] = [None] * many
        self.waiting = bytearray(many)
        self.queue: list[tuple[float, int]] = []
        self.oldest: deque[tuple[float, int]] = deque()
        self.work_s = 0.0
        self.replicas: list[Replica] = []
        self.free: list[Replica] = []
        self.running = self.ready = self.away = 0
        self.books = Books()
        self.events: list[tuple[float, int, int, Any, int]] = []
        self._count, self._now, self._next = 0, 0.0, 0
        self._outages = self._blind_times(random.Random(seed * 7919 + 40_000))

    # -- the run -------------------------------------------------------------------------------------------------
    def run(self) -> Replay:
        """Until every job has ended and the trace's time is over, or nobody is left who could end them."""
        trace, events, many = self.trace, self.events, len(self.trace)
        for _ in range(self.tier.least):  # they were there before
            self._add(0.0, boots=False)
        if self.faults.strikes_per_day:
            self._later(self._fate.expovariate(self.faults.strikes_per_day / DAY_S), _STRIKE, None)
        tick = 0.0
        while True:
            now = tick
            if self._next < many and trace[self._next].at_s < now:
                now = trace[self._next].at_s
            if events and events[0][0] < now:
                now = events[0][0]
            if now > self.end_s and (self._over() or now > self.give_up_s):
                self._advance(max(self._now, self.end_s))
                return self
            self._advance(now)
            while self._next < many and trace[self._next].at_s <= now:
                self._next += 1
                self._enqueue(self._next - 1, now)
            while events and events[0][0] <= now:
                self._happen(heappop(events), now)
            if now >= tick:
                self._tick(now)
                tick = self._next_tick(now)

    def _over(self) -> bool:
        return self._next >= len(self.trace) and not self.queue and not self.running and not self.away

    def _advance(self, now: float) -> None:
        """The time until `now` into the books."""
        spent = now - self._now
        if spent <= 0:
            return
        self._now = now
        books, alive = self.books, len(self.replicas)
        books.alive_s += alive * spent
        books.busy_s += self.running * spent
        need = -(-(self.running + len(self.queue)) // self.slots)
        if alive > need:
            books.over_s += (alive - need) * spent
        most = self.tier.most
        short = (most if need > most else need) - self.ready
        if short > 0:
            books.under_s += short * spent

    def _later(self, at: float, kind: int, what: Any, turn: int = 0) -> None:
        self._count += 1
        heappush(self.events, (at, self._count, kind, what, turn))

    def _happen(self, event: tuple[float, int, int, Any, int], now: float) -> None:
        _, _, kind, what, turn = event
        if kind == _ENDS:
            if self.turn[what] == turn:
                self._slice_over(what, now)
        elif kind == _READY:
            if what in self.replicas:  # else it was taken away while it booted
                what.ready, what.idle_since = True, now
                self.ready += not what.leaving
                self._open(what)
                self._serve(now)
        elif kind == _BACK:
            self.away -= 1
            self._enqueue(what, now)
        elif kind == _GRACE:
            if what in self.replicas:
                self._kill(what, now, by_scaler=True)
        else:
            self._strike(now)

    # -- jobs ----------------------------------------------------------------------------------------------------
    def _enqueue(self, job: int, now: float) -> None:
        left = remaining_s(self.predicted[job], self.done[job])
        if self.service.ordered:
            key = service_key(now, left, self.trace[job].priority, self.service.weight)
        else:
            key = now
        heappush(self.queue, (key, job))
        self.waiting[job] = 1
        self.since[job], self.since_key[job] = now, left
        self.oldest.append((now, job))
        self.work_s += left
        if self.free:
            self._serve(now)

    def _serve(self, now: float) -> None:
        """Jobs to free slots, for as long as there are both."""
        service = self.service
        while self.queue and self.free:
            job = heappop(self.queue)[1]
            self.waiting[job] = 0
            self.work_s = self.work_s - self.since_key[job] if self.queue else 0.0
            free = self.free
            replica = free[int(self._pick.random() * len(free))] if len(free) > 1 else free[0]
            begin = now
            if self.first[job] < 0:
                self.first[job] = now
            else:
                begin += service.resume_s
            replica.jobs.add(job)
            if len(replica.jobs) == self.slots or service.one_job:
                self._shut(replica)
            self.place[job] = replica
            self.running += 1
            self._level(now)
            self.began[job], self.had[job] = begin, self.done[job]
            self._until(job, begin)

    def _until(self, job: int, at: float) -> None:
        """The next end of the job, or of its slice that starts at `at`."""
        end = self.began[job] + self.size[job] - self.had[job]
        if self.service.ordered and end > at + self.service.slice_s:
            end = at + self.service.slice_s
        self._later(end, _ENDS, job, self.turn[job])

    def _slice_over(self, job: int, now: float) -> None:
        done = self.had[job] + now - self.began[job]
        if done >= self.size[job] - 1e-6:
            self.done[job], self.ended[job] = self.size[job], now
            self._leave_slot(job, now)
            self._serve(now)
            return
        left = remaining_s(self.predicted[job], done)
        own = service_key(now, left, self.trace[job].priority, self.service.weight)
        if yields(own, self.queue[0][0] if self.queue else None):
            self.done[job] = done
            self.books.slices += 1
            self._leave_slot(job, now)
            self._enqueue(job, now)
        else:
            self._until(job, now)

    def _leave_slot(self, job: int, now: float) -> None:
        replica = self.place[job]
        assert replica is not None  # only a running job leaves
        self.place[job] = None
        self.turn[job] += 1
        replica.jobs.discard(job)
        replica.served += 1
        self.running -= 1
        self._level(now)
        if not replica.jobs:
            replica.idle_since = now
            if replica.leaving or self.service.one_job:
                self._remove(replica)
                return
        if replica.at < 0 and not replica.leaving and replica in self.replicas:
            self._open(replica)

    def _level(self, now: float) -> None:
        level, levels = -(-self.running // self.slots), self.books.levels
        if not levels or levels[-1][1] != level:
            levels.append((now, level))

    # -- replicas ------------------------------------------------------------------------------------------------
    def _open(self, replica: Replica) -> None:
        if replica.at < 0 and replica.ready and not replica.leaving:
            replica.at = len(self.free)
            self.free.append(replica)

    def _shut(self, replica: Replica) -> None:
        if replica.at >= 0:
            last = self.free.pop()
            if last is not replica:
                self.free[replica.at] = last
                last.at = replica.at
            replica.at = -1

    def _add(self, now: float, boots: bool = True) -> None:
        replica = Replica(now, boots and self._fate.random() < self.faults.failed_boots)
        self.replicas.append(replica)
        self.books.boots += 1
        if not replica.failed:
            spread = math.exp(self.faults.boot_spread * self._fate.gauss(0, 1))
            self._later(now + self.tier.boot_s * spread * boots, _READY, replica)

    def _remove(self, replica: Replica) -> None:
        self._shut(replica)
        self.ready -= replica.ready and not replica.leaving
        self.replicas.remove(replica)

    def _kill(self, replica: Replica, now: float, by_scaler: bool) -> None:
        """The replica and what runs in it, which is queued again as far as it was kept."""
        self._remove(replica)
        for job in sorted(replica.jobs):
            ran = max(0.0, now - self.began[job])
            total = self.had[job] + ran
            kept = 0.0 if self.service.kept_s == math.inf else max(self.had[job], total - self.service.kept_s)
            self.books.redone_s += total - kept
            self.done[job] = kept
            self.hits[job] += 1
            self._leave_dead_slot(job, now)
            if self.hits[job] >= self.faults.dies_after:
                self.books.dead += 1
            else:
                self.away += 1
                self._later(now + self.faults.lease_s, _BACK, job)
        self.books.kills += by_scaler * len(replica.jobs)
        self.books.strikes += (not by_scaler) * len(replica.jobs)

    def _leave_dead_slot(self, job: int, now: float) -> None:
        self.place[job] = None
        self.turn[job] += 1
        self.running -= 1
        self._level(now)

    def _strike(self, now: float) -> None:
        self._later(now + self._fate.expovariate(self.faults.strikes_per_day / DAY_S), _STRIKE, None)
        if self.replicas:
            self._kill(self._fate.choice(self.replicas), now, by_scaler=False)

    # -- the scaler ----------------------------------------------------------------------------------------------
    def _tick(self, now: float) -> None:
        known = not any(begin <= now < end for begin, end in self._outages)
        choice = self.rule(self, now, known)
        books = self.books
        books.alerts += choice.alert
        booting = sorted((r for r in self.replicas if not r.ready and not r.leaving), key=lambda r: r.born)
        for replica in booting[: choice.give_up]:
            self._remove(replica)
        for _ in range(choice.start):
            self._add(now)
        idle = sorted((r for r in self.replicas if r.at >= 0 and not r.jobs), key=lambda r: r.idle_since)
        for replica in idle[: choice.drain]:
            self._remove(replica)
        if choice.take_away:
            self._take_away(choice.take_away, now)
        if choice.start or choice.drain or choice.take_away:
            books.turns.append((now, 1 if choice.start else -1))
        books.peak = max(books.peak, len(self.replicas))

    def _take_away(self, many: int, now: float) -> None:
        staying = [r for r in self.replicas if not r.leaving]
        for replica in self._pick.sample(staying, min(many, len(staying))):
            if not replica.jobs:
                self._remove(replica)
                continue
            self._shut(replica)
            self.ready -= replica.ready
            replica.leaving = True
            self._later(now + self.service.grace_s, _GRACE, replica)

    def _next_tick(self, now: float) -> float:
        """While there is nothing, nothing is decided until the next arrival; schedules and floors are looked at always."""
        tick = now + self.tick_s
        if self.replicas or self.queue or self.away or self.tier.least or self.tier.schedule or self.tier.forecast:
            return tick
        coming = self.trace[self._next].at_s if self._next < len(self.trace) else self.end_s + self.tick_s
        return max(tick, math.ceil(coming / self.tick_s) * self.tick_s)

    def oldest_wait_s(self, now: float) -> float:
        """How long the job waits that waits longest."""
        oldest = self.oldest
        while oldest and not (self.waiting[oldest[0][1]] and self.since[oldest[0][1]] == oldest[0][0]):
            oldest.popleft()
        return now - oldest[0][0] if oldest else 0.0

    def _blind_times(self, draw: random.Random) -> list[tuple[float, float]]:
        found, at = [], 0.0
        while self.faults.outages_per_day:
            at += draw.expovariate(self.faults.outages_per_day / DAY_S)
            if at > self.end_s:
                break
            found.append((at, at + self.faults.outage_s))
        return found
