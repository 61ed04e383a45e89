"""What the scaler knows about a tier at one moment: each signal a value, or None, which is *unknown* and never zero.

The demand comes from the job table, the supply from a driver; the ports here are all that the scaler asks of the two.
`remember` keeps what the policy must know of the past. Decides nothing (see `policy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

UNBOUNDED = 1 << 31
"""The capacity of a place that sets no bound of its own."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a tier is asked for. `oldest_wait_s` is 0 when nothing waits; `work_s` is the predicted rest of the queued jobs;
    `forecast_slots` the slots that earlier days needed at this hour (0: nothing known of earlier days)."""

    queued: int | None = None
    oldest_wait_s: float | None = None
    running: int | None = None
    work_s: float | None = None
    forecast_slots: int | None = 0


@dataclass(frozen=True, slots=True)
class Supply:
    """What a tier has. `ready` replicas take jobs; `booting_s` tells of each that starts for how long it does;
    `draining` ones take no more jobs and will leave; `idle_s` tells of each ready one without a job for how long.
    `boot_s` is the 95th percentile of the boot times seen (the tier's setting while none was); `capacity` is how many
    replicas the place can hold in all (`UNBOUNDED` when it does not say)."""

    ready: int | None = None
    booting_s: tuple[float, ...] | None = None
    draining: int | None = None
    idle_s: tuple[float, ...] | None = None
    boot_s: float | None = None
    capacity: int | None = UNBOUNDED


@dataclass(frozen=True, slots=True)
class Past:
    """What was seen before: when all signals were known for the last time (None: never), and whether work was queued."""

    known_at: float | None = None
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """All that a decision about one tier is made from. `room_hour`: money per hour that the tier may take in all (None:
    unknown; infinite when nothing bounds it); `price_hour`: money per hour of one replica."""

    demand: Demand
    supply: Supply
    past: Past = Past()
    room_hour: float | None = float("inf")
    price_hour: float = 0.0


def unknown(signals: Signals, by_work: bool) -> tuple[str, ...]:
    """Names of the signals that a decision needs and that are unknown. Those of work count only where work is counted."""
    demand, supply = signals.demand, signals.supply
    needed = [("queued", demand.queued), ("running", demand.running), ("ready", supply.ready),
              ("booting", supply.booting_s), ("draining", supply.draining), ("idle", supply.idle_s),
              ("boot time", supply.boot_s), ("capacity", supply.capacity), ("forecast", demand.forecast_slots),
              ("cost", signals.room_hour)]  # fmt: skip
    if by_work:
        needed += [("oldest wait", demand.oldest_wait_s), ("work", demand.work_s)]
    return tuple(name for name, value in needed if value is None)


def remember(past: Past, demand: Demand, known: bool, now: float) -> Past:
    """The past as the next decision sees it. A scaler that never knew anything counts from its first look."""
    if known and demand.queued is not None:
        return Past(now, demand.queued)
    return past if past.known_at is not None else Past(now, past.queued)


class DemandPort(Protocol):
    """Who knows the jobs: the job table. What cannot be read is a `MillraceError`, or a field that is None; never a zero."""

    def demand(self, tier: str) -> Demand: ...


class Office(Protocol):
    """A lease that one holds at a time, by name."""

    def take_office(self, name: str, holder: str, lease_s: float) -> bool: ...

    def leave_office(self, name: str, holder: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Worker:
    """A replica as the job table knows it. `state`: booting, idle, busy, draining; `since` (Unix seconds): when that began;
    `id`: how it is asked to leave."""

    pid: int
    host: str
    state: str
    since: float
    id: str = ""


class Crew(Protocol):
    """Who knows the workers of a tier that were seen lately: the job table. Raises a `MillraceError` when it cannot tell."""

    def crew(self, tier: str) -> Sequence[Worker]: ...


class Foreman(Crew, Protocol):
    """A crew whose workers can be asked to leave when they are idle: they learn it when they next tell that they are there."""

    def ask(self, worker: Worker) -> None: ...
