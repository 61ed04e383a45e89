"""The job table: the truth about every job. A broker only carries numbers, and may lose or double them.

    claim       queued -> running, with worker, attempt + 1 and a lease
    beat        extends the lease, only while (worker, attempt) still hold it: else `JobLost`
    settle      the end of an attempt, under the same condition: a late double is thrown away
    sweep       expired leases go back to queued, or fail by the rules of `states.after`

Every method is one transaction. Times come from `clock`; on PostgreSQL hosts are to keep theirs together to well under
the lease (`Sweeper` holds still when its own jumps). Does not start, stop or measure anything.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from millrace.jobs.bell import ring
from millrace.jobs.database import lock_of
from millrace.jobs.speaking import speaker
from millrace.jobs.statements import statements
from millrace.jobs.states import Job, JobLost, NoSuchJob, Order, Told, after
from millrace.run.order import WEIGHT, remaining_s, service_key

LEASE_S = 30.0
BEAT_S = 5.0
GONE_S = 30.0
"""A worker that was not seen for so long does not count any more."""


@dataclass(frozen=True, slots=True)
class Service:
    """The order of service. `weight`: how many times its own length a long job lets short ones pass. `unknown_s`: the
    length that stands for a job whose length nobody can predict."""

    weight: float = WEIGHT
    unknown_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a heartbeat writes."""

    stage: str = ""
    finished: int = 0
    total: int | None = None
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as the table knows it. `state`: booting, idle, busy, draining; `since`: when it came into it; `asked`: to leave
    when it is idle, which only `ask_to_leave` writes."""

    id: str
    tier: str
    host: str
    pid: int
    version: str
    state: str
    slots: int
    memory_bytes: int
    started_at: float
    seen_at: float
    since: float = 0.0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Open jobs of a queue in one state. `since`: when the oldest of them began to wait; `work_s`: seconds in slots that
    are left of all of them, by prediction."""

    tier: str
    queue: str
    state: str
    jobs: int
    since: float
    work_s: float


class JobTable:
    """Jobs in the database of `engine` (see `database.open_database`). Safe for several threads.

    `bell`: the file at which it rings when a job waits (see `jobs.bell`); None: the database is no file of this host.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        lease_s: float = LEASE_S,
        service: Service | None = None,
        clock: Callable[[], float] = time.time,
        draw: random.Random | None = None,
    ) -> None:
        self.engine, self.lease_s, self.service, self.clock = engine, lease_s, service or Service(), clock
        self._draw = draw or random.Random()
        self._say, self._speak = statements(engine.dialect.name), speaker(engine)
        self._version = -1
        self._watch: sa.Connection | None = None
        self.bell = lock_of(str(engine.url.database)) if engine.dialect.name == "sqlite" else None

    # -- who asks ------------------------------------------------------------------------------------------------
    def submit(self, order: Order) -> Job:
        """A new queued job; the one that is there already when its idempotency key is."""
        now = self.clock()
        said = order.prediction
        row = self._one(
            self._say.insert,
            analysis=order.analysis, label=order.label or order.analysis, question=json.dumps(order.question),
            seed=order.seed, queue=order.queue, tier=order.tier, priority=order.priority,
            service_key=self._key(now, said.seconds, 0.0, order.priority), state="queued", owner=order.owner,
            idempotency_key=order.idempotency_key, created_at=now, not_before=now, attempt=0, attained_s=0.0,
            predicted_s=said.seconds, predicted_core_s=said.core_s, predicted_bytes=said.peak_bytes, stage="",
            finished_tasks=0, own_ends=0, losses=0, escalated=False, cancel_asked=False, max_total_s=order.max_total_s,
            why="",
        )  # fmt: skip
        if row is None:
            row = self._one(self._say.by_key, b_key=order.idempotency_key)
        return self._rung(Job(*row))

    def get(self, number: int) -> Job:
        row = self._one(self._say.by_id, b_id=number)
        if row is None:
            raise NoSuchJob(f"There is no job {number}. `millrace jobs` lists what there is.")
        return Job(*row)

    def of_key(self, key: str) -> Job | None:
        """The job of that idempotency key."""
        row = self._one(self._say.by_key, b_key=key)
        return None if row is None else Job(*row)

    def jobs(
        self, state: str = "", tier: str = "", limit: int = 1000, *, owner: str | None = None, before: int = 0
    ) -> list[Job]:
        """The newest first. `owner`: of that one only; `before`: with a smaller number only."""
        asked = {"b_state": state, "b_tier": tier, "b_limit": limit, "b_before": before}
        rows = self._all(self._say.listed, **asked, b_of_all=owner is None, b_owner=owner or "")
        return [Job(*row) for row in rows]

    def open_of(self, owner: str) -> int:
        """How many jobs of that owner are queued or running."""
        return int(self._one(self._say.open_of, b_owner=owner)[0])

    def ended_after(self, at: float, number: int, limit: int = 500) -> list[Job]:
        """Jobs that ended after that time (or then, with a larger number), in their order."""
        return [Job(*row) for row in self._all(self._say.ended_after, b_at=at, b_id=number, b_limit=limit)]

    def tallies(self) -> tuple[int, int, int]:
        """Over all jobs in the table: attempts beyond the first, jobs that ran out of memory, poison jobs."""
        again, memory, poison = self._one(self._say.tallies)
        return int(again or 0), int(memory or 0), int(poison or 0)

    def cancel(self, number: int, why: str = "cancelled on request") -> Job:
        """A queued job is cancelled at once; a running one is asked to end. What has ended stays as it is."""
        row = self._one(self._say.cancel, b_id=number, b_now=self.clock(), b_why=why)
        return Job(*row) if row is not None else self.get(number)

    def again(self, number: int) -> Job:
        """A failed or cancelled job is queued once more; what it finished is in the store."""
        job, now = self.get(number), self.clock()
        key = self._key(now, job.predicted_s, job.attained_s, job.priority)
        row = self._one(self._say.again, b_id=number, b_now=now, b_service_key=key)
        return self._rung(Job(*row)) if row is not None else self.get(number)

    def prune(self, before: float) -> list[int]:
        """Forget jobs that ended before that time; their numbers."""
        found = [row[0] for row in self._all(self._say.ended_before, b_before=before)]
        for number in found:
            self._none(self._say.delete, b_id=number, b_before=before)
        return found

    # -- who works -----------------------------------------------------------------------------------------------
    def claim(self, worker: str, tier: str, free_bytes: int, share_bytes: int) -> Job | None:
        """The best job of the tier, whatever its queue, whose predicted memory fits into `free_bytes`; None: there is none.

        `share_bytes` stands for a job of unknown memory.
        """
        now = self.clock()
        row = self._one(
            self._say.claim, b_tier=tier, b_now=now, b_share=share_bytes, b_free=free_bytes, b_worker=worker,
            b_until=now + self.lease_s,
        )  # fmt: skip
        return Job(*row) if row is not None else None

    def beat(self, job: Job, progress: Progress) -> bool:
        """Hold the job for another lease; whether it is to be cancelled. `JobLost`: it is not ours any more."""
        row = self._one(
            self._say.beat, b_id=job.id, b_worker=job.worker, b_attempt=job.attempt,
            b_until=self.clock() + self.lease_s, b_stage=progress.stage, b_finished=progress.finished,
            b_total=progress.total, b_peak=progress.peak_bytes,
        )  # fmt: skip
        if row is None:
            raise JobLost(f"The lease of job {job.id} is gone: this attempt's work is thrown away.")
        return bool(row[0])

    def settle(self, job: Job, told: Told, up: tuple[str, str] | None = None) -> Job:
        """Write how the attempt ended. `up`: (tier, queue) of the next bigger tier, for a job out of memory. `JobLost`."""
        settled = self._settle(job, told, up, expired=False)
        if settled is None:
            raise JobLost(f"Job {job.id} is not held by {job.worker} any more: its end is thrown away.")
        return settled

    def outranked(self, job: Job) -> bool:
        """Whether somebody waits in the tier who would be served before this job, were it queued again now."""
        now = self.clock()
        attained = job.attained_s + max(0.0, now - (job.claimed_at or now))
        key = self._key(now, job.predicted_s, attained, job.priority)
        return self._one(self._say.outranked, b_tier=job.tier, b_now=now, b_service_key=key) is not None

    def sweep(self) -> list[Job]:
        """Settle the jobs whose leases have run out; as they are now."""
        found = []
        for row in self._all(self._say.expired, b_now=self.clock()):
            job = Job(*row)
            told = Told("killed", f"its worker {job.worker} was lost", self.clock() - (job.claimed_at or self.clock()))
            settled = self._settle(job, told, None, expired=True)
            if settled is not None:  # else its worker came back, or another sweeper was first
                found.append(settled)
        return found

    # -- who looks -----------------------------------------------------------------------------------------------
    def changed(self) -> bool:
        """Whether somebody else may have changed the database since the last call: cheap, and never wrongly False."""
        if self.engine.dialect.name != "sqlite":
            return True
        if self._watch is None:
            self._watch = self.engine.connect()
        raw = self._watch.connection.driver_connection
        version = raw.execute("pragma data_version").fetchone()[0]  # type: ignore[union-attr]
        was, self._version = self._version, version
        return was != version

    def see(self, worker: Seen) -> bool:
        """A worker says that it is there; whether it was asked to leave when it is idle."""
        row = self._one(self._say.see_worker, **{name: getattr(worker, name) for name in Seen.__slots__})
        return bool(row[0])

    def ask_to_leave(self, worker: str) -> None:
        """Ask a worker to leave when it is idle: it learns it when it says that it is there."""
        self._none(self._say.ask_worker, b_id=worker)

    def forget(self, worker: str) -> None:
        self._spend(self._all(self._say.forget_worker, b_id=worker))

    def _spend(self, lives: Sequence[Any]) -> None:
        for tier, since, seconds in lives:
            self._none(self._say.spend, tier=tier, since=since, worker_s=max(0.0, seconds))

    def lives(self) -> list[tuple[str, float, float]]:
        """(tier, since when, seconds) of each worker that is there, and of those that have left together."""
        return [(tier, since, max(0.0, seconds)) for tier, since, seconds in self._all(self._say.lives)]

    def workers(self, since_s: float = GONE_S) -> list[Seen]:
        """Those that were seen within the last `since_s`; rows of others are taken out after ten times that."""
        now = self.clock()
        self._spend(self._all(self._say.forget_workers, b_before=now - 10 * since_s))
        return [Seen(*row) for row in self._all(self._say.workers, b_since=now - since_s)]

    def load(self) -> list[Load]:
        """Open jobs by tier and queue. A job that waits for its back-off is not queued for anybody yet."""
        rows = self._all(self._say.load, b_now=self.clock(), b_unknown_s=self.service.unknown_s)
        return [Load(row[0], row[1], row[2], int(row[3]), float(row[4]), float(row[5])) for row in rows]

    # -- names, offices, messages --------------------------------------------------------------------------------
    def name(self, kind: str, name: str, given: str) -> None:
        """Register an input under a name; a name that was there means the new one from now on."""
        self._none(self._say.name, kind=kind, name=name, input=given, at=self.clock())

    def named(self, kind: str, name: str) -> str | None:
        row = self._one(self._say.find_name, b_kind=kind, b_name=name)
        return None if row is None else str(row[0])

    def unname(self, kind: str, name: str) -> None:
        self._none(self._say.unname, b_kind=kind, b_name=name)

    def mentions(self, given: str) -> bool:
        """Whether the question of a job, of one that has ended too, has that input."""
        return self._one(self._say.mentions, b_text=given) is not None

    def names(self) -> list[tuple[str, str, str]]:
        return [(row[0], row[1], row[2]) for row in self._all(self._say.names)]

    def take_office(self, name: str, holder: str, lease_s: float) -> bool:
        """Whether `holder` has the office now: it is free, run out, or held by it already. One at a time."""
        now = self.clock()
        row = self._one(self._say.take_office, name=name, holder=holder, until=now + lease_s, b_now=now)
        return row is not None

    def leave_office(self, name: str, holder: str) -> None:
        self._none(self._say.leave_office, b_name=name, b_holder=holder)

    def office(self, name: str) -> tuple[str, float] | None:
        """Who has the office, and until when (Unix seconds); None: nobody."""
        row = self._one(self._say.office, b_name=name, b_now=self.clock())
        return None if row is None else (str(row[0]), float(row[1]))

    def untold(self, older_s: float, within_s: float, limit: int = 100) -> list[Job]:
        """Jobs asked for by a task that ended longer ago than `older_s`, within the last `within_s`, whose caller was not
        told (see `published`)."""
        now = self.clock()
        rows = self._all(self._say.untold, b_before=now - older_s, b_since=now - within_s, b_limit=limit)
        return [Job(*row) for row in rows]

    def published(self, numbers: Sequence[int]) -> None:
        """The message about the present state of these jobs is out."""
        now = self.clock()
        for number in numbers:
            self._none(self._say.published, b_id=number, b_now=now)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._speak.close()
        self.engine.dispose()

    # -- within --------------------------------------------------------------------------------------------------
    def _key(self, now: float, predicted_s: float | None, attained_s: float, priority: int) -> float:
        left = remaining_s(self.service.unknown_s if predicted_s is None else predicted_s, attained_s)
        return service_key(now, left, priority, self.service.weight)

    def _settle(self, job: Job, told: Told, up: tuple[str, str] | None, expired: bool) -> Job | None:
        now = self.clock()
        then = after(job, told, self._draw)
        tier, queue = up if up is not None and then.escalate else (job.tier, job.queue)
        folder, digest = told.answer or (None, None)
        key = self._key(now, job.predicted_s, job.attained_s + told.seconds, job.priority)
        row = self._one(
            self._say.settle, b_id=job.id, b_worker=job.worker, b_attempt=job.attempt, b_any=not expired, b_now=now,
            b_state=then.state, b_not_before=now + then.delay_s, b_service_key=key, b_tier=tier, b_queue=queue,
            b_seconds=max(0.0, told.seconds), b_core_s=told.core_s or 0.0, b_peak=told.peak_bytes, b_own=then.own_ends,
            b_losses=then.losses, b_escalated=then.escalate and up is not None, b_result=folder, b_digest=digest,
            b_ending=told.ending, b_why=then.why,
        )  # fmt: skip
        return self._rung(Job(*row)) if row is not None else None

    def _rung(self, job: Job) -> Job:
        """Workers of this host are told at once of a job that waits."""
        if job.state == "queued" and self.bell is not None:
            ring(self.bell)
        return job

    def _one(self, statement: Any, **values: Any) -> Any:
        return next(iter(self._speak(statement, values)), None)

    def _all(self, statement: Any, **values: Any) -> Sequence[Any]:
        return self._speak(statement, values)

    def _none(self, statement: Any, **values: Any) -> None:
        self._speak(statement, values)


@dataclass(slots=True)
class Sweeper:
    """Sweeps in its time, and holds still for a lease when the clock has jumped: leases of the living would seem run out.

    `clock`, `steady`: the time of day, and one that never jumps.
    """

    table: JobTable
    every_s: float
    steady: Callable[[], float] = time.monotonic
    _next_s: float = 0.0
    _wall: float | None = None
    _steady: float = 0.0

    def tick(self) -> list[Job]:
        wall, steady = self.table.clock(), self.steady()
        if self._wall is not None:
            jump = (wall - self._wall) - (steady - self._steady)
            if abs(jump) > self.table.lease_s / 4:
                self._next_s = steady + 2 * self.table.lease_s
        self._wall, self._steady = wall, steady
        if steady < self._next_s:
            return []
        self._next_s = steady + self.every_s
        return self.table.sweep()


def waiting(job: Job, workers: Sequence[Seen], now: float, ahead: int) -> str:
    """Why a queued job waits, in words; "" when it does not wait."""
    if job.state != "queued":
        return ""
    if job.not_before > now:
        return f"goes again in {job.not_before - now:.0f} s, after: {job.why}"
    able = [w for w in workers if w.tier == job.tier and w.state != "draining"]
    if not able:
        return f"no worker of the tier {job.tier} is there yet"
    if job.predicted_bytes is not None and all(job.predicted_bytes > w.memory_bytes for w in able):
        return f"no worker of the tier {job.tier} has the memory it needs"
    return f"{ahead} of its tier go first" if ahead else "a slot, or memory in one, is to become free"


def plain(job: Job) -> Mapping[str, Any]:
    """A job as JSON tells it; its question as a mapping."""
    return {name: getattr(job, name) for name in Job.__slots__} | {"question": json.loads(job.question)}
