"""Jobs as the service tells them: the row of the table without what is nobody's business outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from millrace.jobs.desk import Desk
from millrace.jobs.states import Job, State
from millrace.jobs.table import Seen, waiting


class Progress(BaseModel):
    stage: str
    finished: int = Field(description="tasks")
    total: int | None = Field(description="tasks, where that is known")


class Took(BaseModel):
    """Predicted or measured; null is unknown."""

    seconds: float | None = Field(description="in a slot of the tier")
    core_s: float | None
    peak_bytes: int | None


class JobView(BaseModel):
    """A job. Times are seconds since 1970."""

    id: int
    analysis: str
    label: str
    question: dict[str, Any] = Field(description="as it was asked; {input: ...} is data or a model by content")
    seed: int
    queue: str
    tier: str
    priority: int
    state: State
    owner: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempt: int
    worker: str | None
    progress: Progress
    predicted: Took
    measured: Took
    cancel_asked: bool
    digest: str | None = Field(description="of the answer")
    why: str = Field(description="the last reason: why it failed, or was queued again")
    waits: str = Field(description="why a queued job waits")


class JobList(BaseModel):
    jobs: list[JobView] = Field(description="the newest first")
    before: int | None = Field(description="ask again with this for the next ones; null: there are no more")


def view(job: Job, waits: str = "") -> dict[str, Any]:
    """As `JobView`."""
    return {
        "id": job.id, "analysis": job.analysis, "label": job.label, "question": json.loads(job.question)["question"],
        "seed": job.seed, "queue": job.queue, "tier": job.tier, "priority": job.priority, "state": job.state,
        "owner": job.owner, "created_at": job.created_at, "started_at": job.first_started_at, "ended_at": job.ended_at,
        "attempt": job.attempt, "worker": job.worker,
        "progress": {"stage": job.stage, "finished": job.finished_tasks, "total": job.total_tasks},
        "predicted": {
            "seconds": job.predicted_s, "core_s": job.predicted_core_s, "peak_bytes": job.predicted_bytes
        },
        "measured": {
            "seconds": job.attained_s if job.attempt else None, "core_s": job.core_s, "peak_bytes": job.peak_bytes
        },
        "cancel_asked": job.cancel_asked, "digest": job.digest, "why": job.why, "waits": waits,
    }  # fmt: skip


def with_waits(desk: Desk, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """All of them, with why the queued ones wait: one look at the workers and at the queue for all."""
    if not any(job.state == "queued" for job in jobs):
        return [view(job) for job in jobs]
    workers, now = desk.table.workers(), desk.table.clock()
    queued = desk.table.jobs("queued")
    return [view(job, _waits(job, queued, workers, now)) for job in jobs]


def _waits(job: Job, queued: Sequence[Job], workers: Sequence[Seen], now: float) -> str:
    ahead = sum(other.tier == job.tier and other.service_key < job.service_key for other in queued)
    return waiting(job, workers, now, ahead)
