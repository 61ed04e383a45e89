"""What a question takes on each tier: whether it fits, how long it takes, what that costs, how often it comes.

Pure but for reading a trace: the tiers, the plan as a function of a budget, and prices are handed in. Cores of tiers are
taken for as fast as this host's, where plans have learnt. Where a job goes is `jobs`' business; see `forecast`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.run.budget import Budget, Plan
from millrace.run.errors import DoesNotFit, WrongQuestion
from millrace.run.units import format_bytes, format_duration, parse_duration

if TYPE_CHECKING:
    from millrace.autoscale.traces import Arrival
    from millrace.tiers import Tier, Tiers

DAY_S = 86_400.0
MONTH_S = 365.25 / 12 * DAY_S


@dataclass(frozen=True, slots=True)
class Often:
    """How often a question comes: `a_month`, and where that is known from."""

    a_month: float
    why: str


@dataclass(frozen=True, slots=True)
class Quote:
    """One run of a question as a job on one tier.

    `fits`: else `needs_bytes` would do, in a worker. `slots` tasks at once on `cores` that it holds: those of its slot, or,
    when it is `alone`, all of a worker. `money`: of one run; `month_money`: of a month of them, None where nobody knows how
    often. `schedule_money`: what the replicas that the tier's schedule keeps cost a month, whatever comes; None without one.
    `chosen`: where a job of it goes.
    """

    tier: str
    fits: bool
    needs_bytes: int = 0
    cores: int = 0
    slots: int = 0
    alone: bool = False
    core_s: float = 0.0
    wall_s: float = 0.0
    worker_bytes: int = 0
    peak_bytes: int = 0
    money: float = 0.0
    month_money: float | None = None
    schedule_money: float | None = None
    chosen: bool = False


def quotes(
    tiers: Tiers,
    plan: Callable[[Budget], Plan],
    here: Budget,
    core_hour_price: float,
    often: Often | None = None,
    chosen: str = "",
) -> tuple[Quote, ...]:
    """A quote of every tier that may have workers. `here`: what a tier has that leaves cores or memory to its host."""
    found = []
    for tier in tiers.tiers.values():
        if tier.most == 0:
            continue
        cores, memory = tier.cores or here.cores, tier.memory or here.private_bytes
        slot = max(1, cores // tier.at_once)
        hour, kept = _hour(tiers, tier, core_hour_price * cores), _schedule_hours(tier)
        said: dict[str, Any] = {
            "tier": tier.name,
            "chosen": tier.name == chosen,
            "schedule_money": None if kept is None else kept * hour,
        }
        needs = 0
        for size, alone in ((memory // tier.at_once, tier.at_once == 1), (memory, True)):
            try:
                made = plan(Budget(slot, size))
            except DoesNotFit as refused:
                needs = refused.needs_bytes
                continue
            held = cores if alone else slot
            money = hour * held / cores * made.wall_s / 3600
            found.append(
                Quote(
                    fits=True, cores=held, slots=made.slots, alone=alone, core_s=made.core_s, wall_s=made.wall_s,
                    worker_bytes=made.worker_bytes, peak_bytes=made.peak_bytes, money=money,
                    month_money=None if often is None else often.a_month * money, **said,
                )
            )  # fmt: skip
            break
        else:
            found.append(Quote(fits=False, needs_bytes=needs, **said))
    return tuple(found)


def _hour(tiers: Tiers, tier: Tier, by_cores: float) -> float:
    """Money of a worker's hour: by the prices of the tiers' file, or else by its cores alone."""
    priced = "prices" in tiers.model_fields_set and tier.cores is not None and tier.memory is not None
    return tier.price_hour(tiers.prices) if priced else by_cores


def _schedule_hours(tier: Tier) -> float | None:
    """Replica-hours a month that the schedule keeps; None where the tier has none."""
    from millrace.autoscale.policy import scheduled
    from millrace.autoscale.simulate import MONDAY

    if not tier.schedule:
        return None
    week = [max(tier.least, scheduled(tier, MONDAY + hour * 3600)) for hour in range(168)]
    return sum(week) * MONTH_S / (7 * DAY_S)


def every(interval: str | float) -> Often:
    """Of a question that is asked once in `interval`."""
    seconds = parse_duration(interval)
    if seconds <= 0:
        raise WrongQuestion(f"A question that is asked every {interval} is asked without end: give a time such as 1h.")
    return Often(MONTH_S / seconds, f"once every {format_duration(seconds)}")


def as_in_trace(arrivals: Sequence[Arrival], queue: str) -> Often | None:
    """As often as jobs of `queue` come in a trace, over its whole days; None when none does."""
    days = math.ceil((arrivals[-1].at_s + 1) / DAY_S)
    jobs = sum(1 for job in arrivals if job.queue == queue)
    if not jobs:
        return None
    return Often(jobs / days * MONTH_S / DAY_S, f"{jobs:,} jobs of the queue {queue} in {days:,} days of the trace")


def table(told: Sequence[Quote]) -> list[tuple[str, ...]]:
    """As people read it: a row a tier, the chosen one marked."""
    month, kept = (any(getattr(q, name) is not None for q in told) for name in ("month_money", "schedule_money"))
    head = ["tier", "cores", "at once", "wall time", "memory", "money"]
    rows = [(*head, *(["a month"] if month else []), *(["schedule, a month"] if kept else []), "")]
    for q in told:
        after = [money_text(q.month_money)] * month + [money_text(q.schedule_money)] * kept
        if q.fits:
            cells = [
                str(q.cores),
                str(q.slots),
                format_duration(q.wall_s),
                format_bytes(q.peak_bytes),
                money_text(q.money),
            ]
            said = "a worker to itself" if q.alone else ""
        else:
            cells, said = ["-"] * 5, f"does not fit: it needs {format_bytes(q.needs_bytes, up=True)}"
        notes = ", ".join(filter(None, ["a job of it goes here" if q.chosen else "", said]))
        rows.append((q.tier, *cells, *after, notes))
    return rows


def money_text(value: float | None) -> str:
    """Money as people read it; what is small but there is never shown as nothing."""
    if value is None:
        return "-"
    if 0 < value < 0.0001:
        return "< 0.0001"
    return f"{value:.4f}" if value < 1 else f"{value:,.2f}"
