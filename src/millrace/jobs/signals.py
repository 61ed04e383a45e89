"""What a scaler needs to know about a tier, read from the job table in one look.

Decides nothing. A table that cannot be read raises `database.DatabaseAway`: never a zero for "could not read".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millrace.jobs.table import GONE_S

if TYPE_CHECKING:
    from millrace.jobs.table import JobTable


@dataclass(frozen=True, slots=True)
class TierLoad:
    """`queued`, `running`: jobs; `oldest_wait_s`: of the queued, 0 when there is none; `work_s`: predicted seconds in slots
    that are left of the queued; `live`, `draining`, `booting`, `idle`: workers; `slots`: of the live; `waits`: the oldest
    wait by queue."""

    queued: int = 0
    running: int = 0
    oldest_wait_s: float = 0.0
    work_s: float = 0.0
    live: int = 0
    booting: int = 0
    draining: int = 0
    idle: int = 0
    slots: int = 0
    waits: dict[str, float] = field(default_factory=dict)
    queued_by: dict[str, int] = field(default_factory=dict)
    running_by: dict[str, int] = field(default_factory=dict)


def worker_seconds(table: JobTable) -> dict[str, tuple[float, float]]:
    """By tier: when its first worker came, and how many seconds workers were there in all."""
    found: dict[str, tuple[float, float]] = {}
    for tier, since, seconds in table.lives():
        first, before = found.get(tier, (since, 0.0))
        found[tier] = min(first, since), before + seconds
    return found


def tier_loads(table: JobTable, tiers: tuple[str, ...], gone_s: float = GONE_S) -> dict[str, TierLoad]:
    """The load of every tier in `tiers`, and of any other that has open jobs or workers."""
    now = table.clock()
    loads, workers = table.load(), table.workers(gone_s)
    names = [*tiers, *sorted({row.tier for row in [*loads, *workers]} - set(tiers))]  # type: ignore[list-item]
    found = {}
    for tier in names:
        queued = [row for row in loads if row.tier == tier and row.state == "queued"]
        running = [row for row in loads if row.tier == tier and row.state == "running"]
        states = [w.state for w in workers if w.tier == tier]
        waits = {row.queue: max(0.0, now - row.since) for row in queued}
        found[tier] = TierLoad(
            queued=sum(row.jobs for row in queued),
            running=sum(row.jobs for row in running),
            oldest_wait_s=max(waits.values(), default=0.0),
            work_s=sum(row.work_s for row in queued),
            live=sum(state != "draining" for state in states),
            booting=states.count("booting"),
            draining=states.count("draining"),
            idle=states.count("idle"),
            slots=sum(w.slots for w in workers if w.tier == tier and w.state != "draining"),
            waits=waits,
            queued_by={row.queue: row.jobs for row in queued},
            running_by={row.queue: row.jobs for row in running},
        )
    return found
